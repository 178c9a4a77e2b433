// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"strings"
	"testing"

	"github.com/orb8/orb8/internal/bpftest"
)

// A tap that cannot enter the pods finds the same at the host's ends of their
// veths: each packet once under its pod, as the pod sends and receives it, and
// what the host itself does and forwards as ever.
func TestEveryPacketFromOutside(t *testing.T) {
	for _, how := range attachments() {
		for _, l := range bpftest.Layouts() {
			if !strings.Contains(l.Name, "pod") || strings.Contains(l.Name, "vlan") {
				continue // no veth, no other end
			}
			t.Run(fmt.Sprintf("%s/%s", l.Name, how), func(t *testing.T) {
				requireAttachment(t, how)
				topo := l.Topology(t)
				warm(topo)
				everyTalk(t, topo, tapOutside(t, topo, how))
			})
		}
	}
}
