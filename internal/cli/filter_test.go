// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/testing/protocmp"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

func TestFilter(t *testing.T) {
	var f filterFlags
	cmd := &cobra.Command{}
	f.add(cmd)
	if f.given() {
		t.Error("nothing was given")
	}
	err := cmd.ParseFlags([]string{
		"-n", "a,b", "--namespace", "b", "--pod=p", "--workload", "Deployment/w",
		"--protocol", "tcp, 58", "--port", "80,443", "--src-port", "0", "--dst-port", "65535",
		"--ip", "10.1.2.3/8", "--src-ip", "::ffff:10.0.0.1", "--dst-ip", "FD00::1", "--direction", "Ingress,egress", "--node", "n",
		"--not-pod", "q", "--not-pod", "r", "--not-protocol", "UDP",
		"-l", "app=web,tier", "--label", "x!=y", "--service", "shop/cart", "--from-pod", "p", "--from-label", "a==b", "--to-service", "cart", "--to-node", "n,m",
		"--fqdn", "*.example.com,db?", "--to-fqdn", "S3.*", "--not-from-fqdn", "*",
		"--not-from-namespace", "kube-system", "--not-to-workload", "w",
	})
	if err != nil {
		t.Fatal(err)
	}
	if !f.given() {
		t.Error("not given")
	}
	include := &orb8v1.Filter{
		Namespaces: []string{"a", "b"}, Pods: []string{"p"}, Workloads: []string{"Deployment/w"},
		Protocols: []uint32{6, 58}, Ports: []uint32{80, 443}, SrcPorts: []uint32{0}, DstPorts: []uint32{65535},
		Ips: []string{"10.0.0.0/8"}, SrcIps: []string{"10.0.0.1"}, DstIps: []string{"fd00::1"},
		Directions: []string{"ingress", "egress"}, Nodes: []string{"n"},
		Labels: []string{"app=web", "tier", "x!=y"}, Services: []string{"shop/cart"}, Fqdns: []string{"*.example.com", "db?"},
		From: &orb8v1.EndFilter{Pods: []string{"p"}, Labels: []string{"a==b"}},
		To:   &orb8v1.EndFilter{Services: []string{"cart"}, Nodes: []string{"n", "m"}, Fqdns: []string{"S3.*"}},
	}
	exclude := &orb8v1.Filter{
		Pods: []string{"q", "r"}, Protocols: []uint32{17},
		From: &orb8v1.EndFilter{Namespaces: []string{"kube-system"}, Fqdns: []string{"*"}}, To: &orb8v1.EndFilter{Workloads: []string{"w"}},
	}
	if diff := cmp.Diff(include, f.include, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(exclude, f.exclude, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

// Every field of the filter on the wire has its flag, and its negation.
func TestEveryFilterHasAFlag(t *testing.T) {
	ends := (&orb8v1.EndFilter{}).ProtoReflect().Descriptor().Fields().Len()
	// The two ends are no fields themselves.
	fields := (&orb8v1.Filter{}).ProtoReflect().Descriptor().Fields().Len() - 2 + 2*ends
	if flags := len(filters(&orb8v1.Filter{})); flags != fields {
		t.Errorf("%d flags for %d fields", flags, fields)
	}
	// A pod does not tell its Services, and has no name outside.
	if flags := len(podFilters(&orb8v1.EndFilter{})); flags != ends-2 {
		t.Errorf("%d flags of pods for %d fields", flags, ends)
	}
}

func TestLabels(t *testing.T) {
	for _, good := range []string{"app", "app=", "app=web", "app==web", "app!=web", "example.com/app=x_1.y"} {
		if got, err := parseLabel(good); err != nil || got != good {
			t.Errorf("%q: %q, %v", good, got, err)
		}
	}
	for _, bad := range []string{"", "=", "=x", "!=x", "!app", "app!", "a b", "a in (b)", "a=b=c", "a!==b"} {
		if _, err := parseLabel(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
