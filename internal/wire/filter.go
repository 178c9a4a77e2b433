// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
)

// maxValues bounds how long a list of a filter may be: each value is compared
// with each flow.
const maxValues = 1000

// Filter reads what a client wants to see. Errors name the field and the value.
func Filter(include, exclude *pb.Filter) (filter.Filter, error) {
	in, err := fields(include)
	if err != nil {
		return filter.Filter{}, fmt.Errorf("include: %w", err)
	}
	ex, err := fields(exclude)
	if err != nil {
		return filter.Filter{}, fmt.Errorf("exclude: %w", err)
	}
	return filter.Filter{Include: in, Exclude: ex}, nil
}

func fields(f *pb.Filter) (filter.Fields, error) {
	out := filter.Fields{
		Namespaces: f.GetNamespaces(),
		Pods:       f.GetPods(),
		Workloads:  f.GetWorkloads(),
		Services:   f.GetServices(),
		Nodes:      f.GetNodes(),
	}
	var r reader
	out.Labels = list(&r, "labels", f.GetLabels(), label)
	out.FQDNs = r.globs("fqdns", f.GetFqdns())
	out.From = r.end("from: ", f.GetFrom())
	out.To = r.end("to: ", f.GetTo())
	out.Protocols = list(&r, "protocols", f.GetProtocols(), protocol)
	out.Ports = list(&r, "ports", f.GetPorts(), port)
	out.SrcPorts = list(&r, "src_ports", f.GetSrcPorts(), port)
	out.DstPorts = list(&r, "dst_ports", f.GetDstPorts(), port)
	out.IPs = list(&r, "ips", f.GetIps(), prefix)
	out.SrcIPs = list(&r, "src_ips", f.GetSrcIps(), prefix)
	out.DstIPs = list(&r, "dst_ips", f.GetDstIps(), prefix)
	out.Directions = list(&r, "directions", f.GetDirections(), direction)
	for _, names := range [][]string{out.Namespaces, out.Pods, out.Workloads, out.Services, out.Nodes} {
		r.bound("names", len(names))
	}
	return out, r.err
}

// Pods reads which pods a client wants to see.
func Pods(include, exclude *pb.EndFilter) (filter.Pods, error) {
	var r reader
	out := filter.Pods{Include: r.end("include: ", include), Exclude: r.end("exclude: ", exclude)}
	if len(out.Include.Services)+len(out.Exclude.Services) > 0 && r.err == nil {
		r.err = errors.New("services: a pod does not tell its Services; ask for its labels")
	}
	if len(out.Include.FQDNs)+len(out.Exclude.FQDNs) > 0 && r.err == nil {
		r.err = errors.New("fqdns: a pod has none; ask for its name")
	}
	if r.err != nil {
		return filter.Pods{}, r.err
	}
	return out, nil
}

// reader keeps the first error.
type reader struct{ err error }

func (r *reader) bound(field string, n int) {
	if n > maxValues && r.err == nil {
		r.err = fmt.Errorf("%s: %d values, the most is %d", field, n, maxValues)
	}
}

// end reads what is about one end; name comes before the fields' in errors.
func (r *reader) end(name string, f *pb.EndFilter) filter.End {
	out := filter.End{
		Namespaces: f.GetNamespaces(),
		Pods:       f.GetPods(),
		Workloads:  f.GetWorkloads(),
		Services:   f.GetServices(),
		Nodes:      f.GetNodes(),
	}
	out.Labels = list(r, name+"labels", f.GetLabels(), label)
	out.FQDNs = r.globs(name+"fqdns", f.GetFqdns())
	for _, names := range [][]string{out.Namespaces, out.Pods, out.Workloads, out.Services, out.Nodes} {
		r.bound(name+"names", len(names))
	}
	return out
}

// label reads KEY, KEY=VALUE (or ==) and KEY!=VALUE.
func label(s string) (filter.Label, error) {
	l := filter.Label{Key: s}
	if key, value, ok := strings.Cut(s, "="); ok {
		l = filter.Label{Key: key, Value: strings.TrimPrefix(value, "="), Wanted: filter.LabelSame}
		if other, not := strings.CutSuffix(key, "!"); not {
			l.Key, l.Wanted, l.Value = other, filter.LabelOther, value
		}
	}
	if l.Key == "" || strings.ContainsAny(l.Key+l.Value, "=!<>(), \t\n") {
		return filter.Label{}, fmt.Errorf("%q is not about a label (KEY, KEY=VALUE, KEY!=VALUE)", s)
	}
	return l, nil
}

// list reads one list-valued field.
func list[From, To any](r *reader, field string, from []From, parse func(From) (To, error)) []To {
	r.bound(field, len(from))
	if r.err != nil {
		return nil
	}
	to := make([]To, 0, len(from))
	for _, v := range from {
		x, err := parse(v)
		if err != nil {
			r.err = fmt.Errorf("%s: %w", field, err)
			return nil
		}
		to = append(to, x)
	}
	return to
}

func protocol(n uint32) (event.Protocol, error) {
	if n > 255 {
		return 0, fmt.Errorf("%d is not a protocol number (0 to 255)", n)
	}
	return event.Protocol(n), nil
}

func port(n uint32) (uint16, error) {
	if n > 65535 {
		return 0, fmt.Errorf("%d is not a port (0 to 65535)", n)
	}
	return uint16(n), nil
}

func prefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, fmt.Errorf("%q is not an address", s)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a CIDR prefix", s)
	}
	return p, nil
}

func direction(s string) (event.Opener, error) {
	switch s {
	case "egress":
		return event.OpenerLocal, nil
	case "ingress":
		return event.OpenerRemote, nil
	}
	return 0, fmt.Errorf("%q is not a direction (egress, ingress)", s)
}
