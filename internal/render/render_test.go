// SPDX-License-Identifier: Apache-2.0

package render

import (
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

func TestUnits(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0B", 999: "999B", 1000: "1.0KB", 1400: "1.4KB", 999_949: "999.9KB", 999_950: "1.0MB",
		12_345_678_901: "12.3GB", math.MaxUint64: "18.4EB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %s, want %s", n, got, want)
		}
	}
	for us, want := range map[uint32]string{1: "1µs", 999: "999µs", 1000: "1.0ms", 999_949: "999.9ms", 999_950: "1.00s", 1_500_000: "1.50s"} {
		if got := Micros(us); got != want {
			t.Errorf("Micros(%d) = %s, want %s", us, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0s", 250 * time.Millisecond: "250ms", 59 * time.Second: "59s", 12*time.Minute + 5*time.Second: "12m5s",
		time.Hour + 5*time.Second: "1h", 26*time.Hour + time.Minute: "1d2h",
	} {
		if got := Age(d); got != want {
			t.Errorf("Age(%d) = %s, want %s", d, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := group(n); got != want {
			t.Errorf("group(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestName(t *testing.T) {
	for _, c := range []struct {
		end  *orb8v1.End
		want string
	}{
		{&orb8v1.End{Ip: "10.0.0.1", Namespace: "a", Pod: "b", Unit: "kubepods.slice", Process: "x"}, "a/b"},
		{&orb8v1.End{Ip: "10.0.0.1", Class: "node", Node: "n1"}, "node/n1"},
		{&orb8v1.End{Ip: "10.0.0.1", Class: "node"}, "10.0.0.1"},
		{&orb8v1.End{Ip: "10.0.0.1", Class: "host", Node: "n1", Process: "kubelet"}, "-/kubelet"},
		{&orb8v1.End{Ip: "10.0.0.1", Class: "apiserver", Node: "n1"}, "apiserver"},
		{&orb8v1.End{Ip: "10.0.0.1", Namespace: "a", Pod: "b", Container: "main"}, "a/b"},
		{&orb8v1.End{Ip: "10.0.0.1", Container: strings.Repeat("0123456789abcdef", 4), Process: "nginx"}, "-/0123456789ab"},
		{&orb8v1.End{Ip: "10.0.0.1", Container: "my-lxc-machine", Process: "nginx"}, "-/my-lxc-machine"},
		{&orb8v1.End{Ip: "10.0.0.1", Unit: "ssh.service", Process: "sshd"}, "-/ssh.service"},
		{&orb8v1.End{Ip: "10.0.0.1", Unit: "session-3.scope", Process: "iperf3"}, "-/iperf3"},
		{&orb8v1.End{Ip: "10.0.0.1", Unit: "session-3.scope"}, "-/session-3.scope"},
		{&orb8v1.End{Ip: "10.0.0.1", Class: "kernel:nfs", Process: "ls"}, "kernel:nfs"},
		{&orb8v1.End{Ip: "10.0.0.1", Class: "kernel", Container: "0123"}, "kernel"},
		{&orb8v1.End{Ip: "192.0.2.1", Fqdn: "example.com", Class: "external"}, "example.com"},
		{&orb8v1.End{Ip: "192.0.2.1", Class: "external"}, "192.0.2.1"},
		{nil, ""},
	} {
		if got := Name(c.end); got != c.want {
			t.Errorf("Name(%v) = %s, want %s", c.end, got, c.want)
		}
	}
}

func TestRemoteName(t *testing.T) {
	end := func(e *orb8v1.End) *orb8v1.End {
		e.Ip, e.Port = "10.96.0.9", 80
		return e
	}
	backend := &orb8v1.End{Ip: "10.1.0.5", Port: 8080}
	for _, c := range []struct {
		want       string
		end, other *orb8v1.End
	}{
		{"shop/cart:80→cart-x2x7q:8080", &orb8v1.End{Namespace: "shop", Pod: "cart-x2x7q", Service: "shop/cart"}, backend},
		{"shop/cart:80→other/cart-x2x7q:8080", &orb8v1.End{Namespace: "other", Pod: "cart-x2x7q", Service: "shop/cart"}, backend},
		{"shop/cart:80→cart-0", &orb8v1.End{Namespace: "shop", Pod: "cart-0", Service: "shop/cart"}, nil},
		{"shop/cart:80→cart-0", &orb8v1.End{Namespace: "shop", Pod: "cart-0", Service: "shop/cart"}, &orb8v1.End{Ip: "10.1.0.5", Port: 80}},
		{"unknown (socket LB)→shop/cart-0:80", &orb8v1.End{Namespace: "shop", Pod: "cart-0", Service: "unknown (socket LB)"}, nil},
		{"default/kubernetes:80→apiserver:8080", &orb8v1.End{Class: "apiserver", Service: "default/kubernetes"}, backend},
		{"shop/cart:80→10.1.0.5:8080", &orb8v1.End{Class: "external", Service: "shop/cart"}, backend},
		{"shop/cart:80", &orb8v1.End{Class: "service", Service: "shop/cart"}, nil},
		{"shop/cart-0:80", &orb8v1.End{Namespace: "shop", Pod: "cart-0", Class: "pod"}, backend},
		{"10.96.0.9:80", &orb8v1.End{}, nil},
	} {
		f := &orb8v1.FlowRecord{Protocol: 6, Remote: end(c.end), TranslatedRemote: c.other}
		if got := remoteName(f); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
	ping := &orb8v1.FlowRecord{Protocol: 1, Remote: &orb8v1.End{Ip: "10.96.0.9", Namespace: "shop", Pod: "cart-0", Service: "shop/cart"}}
	if got := remoteName(ping); got != "shop/cart→cart-0" {
		t.Errorf("without ports: %s", got)
	}
}

// Rows of every width: the lines of a table never leave the terminal, as far
// as names can be cut and columns dropped, and no port is ever lost.
func TestTableFits(t *testing.T) {
	for _, name := range []string{"p", "coredns-5d78c9869d-x7x2p", strings.Repeat("long-", 40)} {
		for width := 60; width < 200; width += 7 {
			table := NewFlowTable(Style{Human: true, Width: width}, false)
			table.Add(&orb8v1.FlowRecord{
				Protocol: 58, State: "established", Local: &orb8v1.End{Namespace: "ns", Pod: name, Port: 8080}, Remote: &orb8v1.End{Ip: "2001:db8:1:2:3:4:5:6"},
				Total: &orb8v1.Traffic{TxBytes: 999_900_000_000}, Health: &orb8v1.Health{RttUs: 123_456},
			}, Rate{})
			var out strings.Builder
			if err := table.Flush(&out); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(out.String()) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
					t.Errorf("%d characters on a terminal of %d: %s", n, width, line)
				}
			}
			if !strings.Contains(out.String(), ":8080 ") {
				t.Errorf("width %d lost the port:\n%s", width, out.String())
			}
		}
	}
}

// Columns stay at least two blanks apart and cells hold none, so that a row is
// its fields.
func TestTablePipedIsFields(t *testing.T) {
	table := newTable(Style{}, []column{{title: "A"}, {title: "B", right: true}, {title: "C"}})
	table.add([]cell{{text: "x y"}, {text: "12"}, {}})
	table.add([]cell{{text: ""}, {text: "1234567"}, {text: "z", tone: red}})
	var out strings.Builder
	if err := table.Flush(&out); err != nil {
		t.Fatal(err)
	}
	want := "A             B  C\nx\\x20y       12  -\n-       1234567  z\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestFlowJSONPorts(t *testing.T) {
	for _, c := range []struct {
		flow *orb8v1.FlowRecord
		want bool
	}{
		{&orb8v1.FlowRecord{Protocol: 6, Local: &orb8v1.End{Port: 22}}, true},
		{&orb8v1.FlowRecord{Protocol: 17}, true},
		{&orb8v1.FlowRecord{Protocol: 17, Fragments: true}, false},
		{&orb8v1.FlowRecord{Protocol: 1}, false},
		{&orb8v1.FlowRecord{Protocol: 132}, false},
		{&orb8v1.FlowRecord{Protocol: 132, Remote: &orb8v1.End{Port: 5000}}, true},
	} {
		var out strings.Builder
		if err := FlowJSON(&out, c.flow); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(out.String(), `"port"`); got != c.want {
			t.Errorf("port shown: %v, want %v: %s", got, c.want, out.String())
		}
	}
}

func TestPerSecond(t *testing.T) {
	before, now := &orb8v1.Traffic{TxBytes: 100, RxBytes: 50}, &orb8v1.Traffic{TxBytes: 1100, RxBytes: 50}
	if got := PerSecond(before, now, 2*time.Second); got != (Rate{Tx: 500, Known: true}) {
		t.Errorf("got %+v", got)
	}
	if got := PerSecond(now, before, time.Second); got.Known {
		t.Errorf("totals that shrank have a rate: %+v", got)
	}
	if got := PerSecond(before, now, 0); got.Known {
		t.Errorf("no time has a rate: %+v", got)
	}
}
