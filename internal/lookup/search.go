// SPDX-License-Identifier: Apache-2.0

package lookup

import (
	"slices"
	"strings"

	"github.com/orb8/orb8/internal/event"
)

const (
	rcodeNoError  event.RCode = 0
	rcodeNXDomain event.RCode = 3

	// Of a client: names that were not there, search domains.
	maxMisses, maxDomains = 32, 8
	// Of a search domain that is recognised by its form.
	maxLabels = 10
)

// search follows the search lists of clients. A resolver that is given a name with
// few dots tries it with one domain after the other: NAME.ns.svc.cluster.local,
// NAME.svc.cluster.local, ..., and the name itself before or after that.
type search struct {
	clients map[clientKey]*client
	// By the last name that was not there.
	order order[client]
}

// clientKey is who has a resolver of its own.
type clientKey struct {
	netns  uint32
	cgroup uint64 // in the host's namespace
}

type client struct {
	key     clientKey
	misses  []miss // the oldest is overwritten, at miss
	miss    int
	domains []string // at domain
	domain  int
	last    int64
	place   place[client]
}

// miss is a name that is not there. Once it is told with another it stays, so that
// a second server's answer does not count again.
type miss struct {
	name            string
	kind            uint16
	asked, answered int64
	// When the name was asked that it was told with.
	told int64
}

// searched gives a look-up what was tried before it, and remembers it, if it is
// one of those itself. A and AAAA are tried each for themselves.
func (t *Tracker) searched(l *event.Lookup) {
	k := clientKey{netns: l.Conn.Netns}
	if k.netns == t.cfg.Host {
		k.cgroup = l.Cgroup
	}
	c := t.search.clients[k]
	if c != nil && l.Name != "." {
		c.settle(l)
	}
	if l.RCode != rcodeNXDomain {
		return
	}
	if c == nil {
		if len(t.search.clients) >= t.cfg.MaxClients {
			t.search.forget(t.search.order.oldest())
		}
		c = &client{key: k}
		t.search.clients[k] = c
	}
	c.last = l.Answered
	t.search.order.push(&c.place, c)
	c.remember(l)
}

// expireClients forgets those whose search domains have not been seen at work for
// a while.
func (t *Tracker) expireClients(now int64) {
	for c := t.search.order.oldest(); c != nil && now-c.last > 120*shortly; c = t.search.order.oldest() {
		t.search.forget(c)
	}
}

// settle tells a look-up which names were tried before it.
func (c *client) settle(l *event.Lookup) {
	for i := range c.misses {
		// The oldest first.
		m := &c.misses[(c.miss+i)%len(c.misses)]
		if m.told != 0 || m.kind != l.Type || m.asked > l.Asked || l.Asked-m.answered > shortly {
			continue
		}
		domain := c.domainOf(m.name, l)
		if domain == "" {
			continue
		}
		m.told = max(l.Asked, 1)
		l.SearchMisses++
		if !slices.Contains(l.SearchDomains, domain) {
			l.SearchDomains = append(l.SearchDomains, domain)
		}
	}
}

// domainOf gives the domain that a name was tried with before the look-up, or "".
func (c *client) domainOf(tried string, l *event.Lookup) string {
	if domain, ok := under(tried, l.Name); ok {
		c.know(domain)
		return domain
	}
	first := strings.IndexByte(tried, '.')
	if l.RCode != rcodeNoError || first < 0 || !strings.HasPrefix(l.Name, tried[:first+1]) {
		return "" // which is tried last is known of the name itself alone
	}
	for _, domain := range c.domains {
		if c.another(tried, domain, l.Name) {
			return domain
		}
	}
	// The lists of Kubernetes: NAMESPACE.svc.CLUSTER and svc.CLUSTER. The shortest
	// first, since the name may have an svc of its own.
	dot := len(tried)
	for range maxLabels {
		if dot = strings.LastIndexByte(tried[:dot], '.'); dot < first {
			break
		}
		domain := tried[dot+1:]
		_, rest, _ := strings.Cut(domain, ".")
		if (strings.HasPrefix(domain, "svc.") || strings.HasPrefix(rest, "svc.")) && c.another(tried, domain, l.Name) {
			return domain
		}
	}
	return ""
}

// another tells that a name which was tried with one domain is now asked for with
// another, that the client has, too: as it was seen to, or since lists go on with
// what a domain ends with.
func (c *client) another(tried, domain, name string) bool {
	base, ok := strings.CutSuffix(tried, domain)
	if !ok || len(base) < 2 || base[len(base)-1] != '.' {
		return false
	}
	now, ok := strings.CutPrefix(name, base)
	return ok && now != domain && (strings.HasSuffix(domain, "."+now) || slices.Contains(c.domains, now))
}

// under gives what a name has behind another one.
func under(long, short string) (behind string, ok bool) {
	n := len(short)
	if len(long) <= n+1 || long[n] != '.' || long[:n] != short {
		return "", false
	}
	return long[n+1:], true
}

// know notes a search domain of the client's.
func (c *client) know(domain string) {
	switch {
	case slices.Contains(c.domains, domain):
	case len(c.domains) < maxDomains:
		c.domains = append(c.domains, domain)
	default:
		c.domains[c.domain] = domain
		c.domain = (c.domain + 1) % maxDomains
	}
}

// remember notes that a name is not there.
func (c *client) remember(l *event.Lookup) {
	m := miss{name: l.Name, kind: l.Type, asked: l.Asked, answered: l.Answered}
	for i := range c.misses {
		old := &c.misses[i]
		if old.name != m.name || old.kind != m.kind {
			continue
		}
		if m.asked <= max(old.told, old.answered) {
			return // another server's answer to the same
		}
		*old = miss{told: m.asked} // this one is younger than those between
		break
	}
	if len(c.misses) < maxMisses {
		c.misses = append(c.misses, m)
		return
	}
	c.misses[c.miss] = m
	c.miss = (c.miss + 1) % maxMisses
}

func (s *search) forget(c *client) {
	c.place.drop()
	delete(s.clients, c.key)
}
