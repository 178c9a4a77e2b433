// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
)

// filterFlags are the same for every command that shows connections. They are
// checked here and evaluated where the data is.
type filterFlags struct{ include, exclude *orb8v1.Filter }

func (f *filterFlags) add(cmd *cobra.Command) {
	f.include, f.exclude = &orb8v1.Filter{}, &orb8v1.Filter{}
	addFilters(cmd, filters(f.include), filters(f.exclude))
}

// addFilters adds each flag and its negation. Those of one end have theirs, too,
// but the help would be too long to read with them.
func addFilters(cmd *cobra.Command, include, exclude []filterFlag) {
	cmd.Flags().SortFlags = false
	for _, flag := range include {
		addFilter(cmd, flag, "only "+flag.help)
	}
	for _, flag := range exclude {
		hidden := strings.HasPrefix(flag.name, "from-") || strings.HasPrefix(flag.name, "to-")
		flag.name, flag.short = "not-"+flag.name, ""
		// The placeholder of the help is what pflag shows as the value.
		addFilter(cmd, flag, "leave out `"+strings.Split(flag.help, "`")[1]+"`")
		cmd.Flags().Lookup(flag.name).Hidden = hidden
	}
}

func addFilter(cmd *cobra.Command, flag filterFlag, help string) {
	cmd.Flags().VarP(flag.list, flag.name, flag.short, help)
	if flag.allowed != nil {
		// Fails only for a flag that does not exist.
		_ = cmd.RegisterFlagCompletionFunc(flag.name, cobra.FixedCompletions(flag.allowed, cobra.ShellCompDirectiveNoFileComp))
	}
}

// given tells whether any filter narrows the answer.
func given(lists ...[]filterFlag) bool {
	for _, flags := range lists {
		for _, flag := range flags {
			if flag.list.String() != "" {
				return true
			}
		}
	}
	return false
}

func (f *filterFlags) given() bool { return given(filters(f.include), filters(f.exclude)) }

// nodes are those that have what is asked for.
func (f *filterFlags) nodes() *nodeChoice {
	return &nodeChoice{f.include.GetNodes(), f.exclude.GetNodes()}
}

type filterFlag struct {
	name, short, help string
	list              *list
	// For completion.
	allowed []string
}

func filters(f *orb8v1.Filter) []filterFlag {
	if f.From == nil {
		f.From, f.To = &orb8v1.EndFilter{}, &orb8v1.EndFilter{}
	}
	flags := []filterFlag{
		{name: "namespace", short: "n", help: "connections of these `NAMESPACE`s", list: texts(&f.Namespaces, anyName)},
		{name: "pod", help: "connections of these pods, `NAME` or NAMESPACE/NAME", list: texts(&f.Pods, anyName)},
		{name: "workload", help: "connections of these workloads, `NAME` or KIND/NAME", list: texts(&f.Workloads, anyName)},
		{name: "label", short: "l", help: "connections of pods with one of these labels: `KEY`, KEY=VALUE or KEY!=VALUE", list: texts(&f.Labels, parseLabel)},
		{name: "service", help: "connections to these Services, `NAME` or NAMESPACE/NAME", list: texts(&f.Services, anyName)},
		{name: "fqdn", help: "connections with what is outside by these names, `GLOB` as *.example.com", list: texts(&f.Fqdns, parseGlob)},
		{
			name: "protocol", help: "these `PROTOCOL`s: TCP, UDP, ICMP, ICMPv6, SCTP or a number", list: numbers(&f.Protocols, parseProtocol),
			allowed: []string{"TCP", "UDP", "ICMP", "ICMPv6", "SCTP"},
		},
		{name: "port", help: "connections with these `PORT`s at either end", list: numbers(&f.Ports, parsePort)},
		{name: "src-port", help: "connections opened from these `PORT`s", list: numbers(&f.SrcPorts, parsePort)},
		{name: "dst-port", help: "connections opened to these `PORT`s", list: numbers(&f.DstPorts, parsePort)},
		{name: "ip", help: "connections with these addresses, `IP` or CIDR, at either end", list: texts(&f.Ips, parsePrefix)},
		{name: "src-ip", help: "connections opened from these addresses, `IP` or CIDR", list: texts(&f.SrcIps, parsePrefix)},
		{name: "dst-ip", help: "connections opened to these addresses, `IP` or CIDR", list: texts(&f.DstIps, parsePrefix)},
		{
			name: "direction", help: "connections of this `DIRECTION`: ingress (opened by the remote end) or egress",
			list: texts(&f.Directions, parseDirection), allowed: []string{"ingress", "egress"},
		},
		{name: "node", help: "what these `NODE`s saw", list: texts(&f.Nodes, anyName)},
	}
	flags = append(flags, endFilters(f.GetFrom(), "from-", "connections opened by")...)
	return append(flags, endFilters(f.GetTo(), "to-", "connections opened to")...)
}

// podFilters are the flags about pods themselves.
func podFilters(f *orb8v1.EndFilter) []filterFlag {
	return []filterFlag{
		{name: "namespace", short: "n", help: "pods of these `NAMESPACE`s", list: texts(&f.Namespaces, anyName)},
		{name: "pod", help: "these pods, `NAME` or NAMESPACE/NAME", list: texts(&f.Pods, anyName)},
		{name: "workload", help: "pods of these workloads, `NAME` or KIND/NAME", list: texts(&f.Workloads, anyName)},
		{name: "label", short: "l", help: "pods with one of these labels: `KEY`, KEY=VALUE or KEY!=VALUE", list: texts(&f.Labels, parseLabel)},
		{name: "node", help: "pods on these `NODE`s", list: texts(&f.Nodes, anyName)},
	}
}

// nodeFilters are the flag about nodes, where there is nothing else to choose.
func nodeFilters(to *[]string) []filterFlag {
	return []filterFlag{{name: "node", help: "these `NODE`s", list: texts(to, anyName)}}
}

// endFilters are the flags about one end of a connection.
func endFilters(f *orb8v1.EndFilter, prefix, help string) []filterFlag {
	return []filterFlag{
		{name: prefix + "namespace", help: help + " these `NAMESPACE`s", list: texts(&f.Namespaces, anyName)},
		{name: prefix + "pod", help: help + " these pods, `NAME` or NAMESPACE/NAME", list: texts(&f.Pods, anyName)},
		{name: prefix + "workload", help: help + " these workloads, `NAME` or KIND/NAME", list: texts(&f.Workloads, anyName)},
		{name: prefix + "label", help: help + " pods with one of these labels: `KEY`, KEY=VALUE or KEY!=VALUE", list: texts(&f.Labels, parseLabel)},
		{name: prefix + "service", help: help + " these Services, `NAME` or NAMESPACE/NAME", list: texts(&f.Services, anyName)},
		{name: prefix + "node", help: help + " what is on these `NODE`s", list: texts(&f.Nodes, anyName)},
		{name: prefix + "fqdn", help: help + " what is outside by these names, `GLOB` as *.example.com", list: texts(&f.Fqdns, parseGlob)},
	}
}

// list is a flag with several values, by comma or by repetition. It implements
// pflag.Value.
type list struct {
	add   func(string) error
	shown func() []string
}

func (l *list) Set(s string) error {
	for v := range strings.SplitSeq(s, ",") {
		if err := l.add(strings.TrimSpace(v)); err != nil {
			return err
		}
	}
	return nil
}

func (l *list) String() string {
	if l.shown == nil {
		return ""
	}
	return strings.Join(l.shown(), ",")
}

func (l *list) Type() string { return "list" }

func texts(to *[]string, parse func(string) (string, error)) *list {
	return &list{
		add: func(s string) error {
			v, err := parse(s)
			if err == nil && !slices.Contains(*to, v) {
				*to = append(*to, v)
			}
			return err
		},
		shown: func() []string { return *to },
	}
}

func numbers(to *[]uint32, parse func(string) (uint32, error)) *list {
	return &list{
		add: func(s string) error {
			v, err := parse(s)
			if err == nil && !slices.Contains(*to, v) {
				*to = append(*to, v)
			}
			return err
		},
		shown: func() (all []string) {
			for _, n := range *to {
				all = append(all, strconv.FormatUint(uint64(n), 10))
			}
			return all
		},
	}
}

func anyName(s string) (string, error) {
	if s == "" {
		return "", fmt.Errorf("a name is empty: allowed are names, separated by commas")
	}
	return s, nil
}

// parseGlob: * is any characters, ? is one.
func parseGlob(s string) (string, error) {
	if s == "" || len(s) > 255 {
		return "", fmt.Errorf("not a name or pattern: allowed are up to 255 characters, of which * is any and ? is one (*.example.com)")
	}
	return s, nil
}

func parseLabel(s string) (string, error) {
	key, value, _ := strings.Cut(s, "=")
	if other, not := strings.CutSuffix(key, "!"); not && s != key {
		key = other
	} else {
		// As kubectl does.
		value = strings.TrimPrefix(value, "=")
	}
	if key == "" || strings.ContainsAny(key+value, "=!<>() \t\n") {
		return "", fmt.Errorf("not about a label: allowed are KEY, KEY=VALUE and KEY!=VALUE")
	}
	return s, nil
}

func parseProtocol(s string) (uint32, error) {
	p, ok := event.ParseProtocol(s)
	if !ok {
		return 0, fmt.Errorf("not a protocol: allowed are TCP, UDP, ICMP, ICMPv6, SCTP and numbers from 0 to 255")
	}
	return uint32(p), nil
}

func parsePort(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("not a port: allowed are numbers from 0 to 65535")
	}
	return uint32(n), nil
}

func parsePrefix(s string) (string, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return a.Unmap().String(), nil
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked().String(), nil
	}
	return "", fmt.Errorf("not an address: allowed are an IP (10.1.2.3, fd00::1) and a CIDR (10.0.0.0/8, fd00::/64)")
}

func parseDirection(s string) (string, error) {
	switch d := strings.ToLower(s); d {
	case "ingress", "egress":
		return d, nil
	}
	return "", fmt.Errorf("not a direction: allowed are ingress and egress")
}
