// SPDX-License-Identifier: Apache-2.0

package lookup

import (
	"time"

	"github.com/orb8/orb8/internal/event"
)

// shortly is how long after one thing another comes of it: a question over TCP of
// an answer that was cut, the next name of a search list of one that is not there.
const shortly = int64(5 * time.Second)

// cut is what a client asks again over TCP.
type cut struct {
	netns         uint32
	kind          uint16
	local, remote event.IP
	name          string
}

func cutOf(l *event.Lookup) cut {
	return cut{l.Conn.Netns, l.Type, l.Conn.Local, l.Conn.Remote, l.Name}
}

// recent remembers the last cut answers.
type recent struct {
	at    map[cut]int64
	order [1024]cut
	next  int
}

func (r *recent) add(c cut, at int64) {
	if _, ok := r.at[c]; !ok {
		delete(r.at, r.order[r.next])
		r.order[r.next] = c
		r.next = (r.next + 1) % len(r.order)
	}
	r.at[c] = at
}

// take tells whether there was one a moment ago. Each is asked for once.
func (r *recent) take(c cut, at int64) bool {
	was, ok := r.at[c]
	if ok {
		delete(r.at, c)
	}
	return ok && at-was <= shortly
}
