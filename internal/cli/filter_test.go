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
	}
	exclude := &orb8v1.Filter{Pods: []string{"q", "r"}, Protocols: []uint32{17}}
	if diff := cmp.Diff(include, f.include, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(exclude, f.exclude, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

// Every field of the filter on the wire has its flag, and its negation.
func TestEveryFilterHasAFlag(t *testing.T) {
	fields := (&orb8v1.Filter{}).ProtoReflect().Descriptor().Fields().Len()
	if flags := len(filters(&orb8v1.Filter{})); flags != fields {
		t.Errorf("%d flags for %d fields", flags, fields)
	}
}
