// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// packetsOnDemand: agents that were not told to allow it capture nothing. With
// their leave, the packets of one connection are captured at both of its pods,
// on two nodes: as many as the records count, and no others.
func packetsOnDemand(t *testing.T, s *scene) {
	client, server := s.pair(place{node: 1}, place{node: 2}, 7500)
	pods := "--pod=" + client.ns + "/" + client.name + "," + server.ns + "/" + server.name
	if _, errs, err := s.ask("capture", pods, "--duration", "1s", "-w", filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(errs, "--allow-capture") {
		t.Fatalf("a capture that nobody allowed: %v, %s", err, errs)
	}
	allow := func(setting string) {
		s.kubectl(t, "-n", "orb8-system", "set", "env", "daemonset/orb8-agent", setting)
		s.kubectl(t, "-n", "orb8-system", "rollout", "status", "daemonset/orb8-agent", "--timeout=60s")
		s.waitForAgents(t)
	}
	allow("ORB8_ALLOW_CAPTURE=true")
	t.Cleanup(func() { allow("ORB8_ALLOW_CAPTURE-") })

	file := filepath.Join(t.TempDir(), "packets.pcapng")
	type answer struct {
		errs string
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		_, errs, err := s.ask("capture", pods, "--port", "7500", "--duration", "12s", "-w", file)
		done <- answer{errs, err}
	}()
	time.Sleep(4 * time.Second)
	// No frame is larger than a segment: larger packets are captured whole, and
	// counted by their segments.
	made := s.traffic(client, "main", "send", "-to", server.ip+":7500", "-bytes", "1000", "-back", "800", "-times", "20")
	s.traffic(client, "main", "send", "-to", server.ip+":7500", "-udp", "-bytes", "100", "-back", "100")
	here, there := s.between(made, client, server, "main")
	s.checkConnection(t, made, here, there)
	record, complaints := s.look(here)
	if record == nil {
		t.Fatal(complaints)
	}
	a := <-done
	if a.err != nil {
		t.Fatal(a.err)
	}
	t.Logf("%s", strings.TrimSpace(a.errs))

	out, err := exec.Command("tshark", "-r", file, "-Y", fmt.Sprintf("tcp.port == %d", here.local.Port), "-T", "fields",
		"-e", "frame.interface_name", "-e", "ip.src", "-e", "frame.interface_description").Output()
	if err != nil {
		t.Fatal(err)
	}
	sent := map[string]uint64{} // by interface and sender
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		sent[f[0]+" "+f[1]]++
	}
	want := map[string]uint64{}
	for _, p := range []pod{client, server} {
		want[p.name+"/eth0 "+client.ip] = record.TxPackets
		want[p.name+"/eth0 "+server.ip] = record.RxPackets
	}
	for what, n := range want {
		if sent[what] != n {
			t.Errorf("%s: %d packets captured, the record has %d", what, sent[what], n)
		}
	}
	if len(sent) != len(want) {
		t.Errorf("captured: %v", sent)
	}
	all, err := exec.Command("tshark", "-r", file, "-T", "fields", "-e", "tcp.port", "-e", "udp.port").Output()
	if err != nil {
		t.Fatal(err)
	}
	strangers := slices.Collect(strings.Lines(string(all)))
	strangers = slices.DeleteFunc(strangers, func(l string) bool { return strings.Contains(l, "7500") })
	if len(strangers) > 0 {
		t.Errorf("captured what was not asked for: %q", strangers)
	}
}
