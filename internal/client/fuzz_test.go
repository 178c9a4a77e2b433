// SPDX-License-Identifier: Apache-2.0

package client

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// What is understood as an address has a port, or is the path of a socket.
func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{
		"", "localhost", "node-1:9090", ":9090", "[::1]:80", "::1", "[fe80::1%eth0]", "unix:///run/orb8/agent.sock", "unix://x", "/run/../a",
		"ns/pod", "../x", "a/..", "a:0", "a:65536", "a:080", "[", "a@b", "a b", "10.0.0.1:",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		agent, err := ParseAgent(s)
		server, err2 := ParseServer(s)
		for a, err := range map[Address]error{agent: err, server: err2} {
			if err != nil {
				continue
			}
			if a.Role == Agent && a.network() == "unix" {
				if !filepath.IsAbs(a.Place) || filepath.Clean(a.Place) != a.Place {
					t.Errorf("%q: path %q", s, a.Place)
				}
				continue
			}
			if a.Role == AgentPod {
				if strings.Count(a.Place, "/") != 1 || strings.ContainsAny(a.Place, ":?#% ") || strings.HasPrefix(a.Place, ".") || strings.Contains(a.Place, "/.") {
					t.Errorf("%q: pod %q", s, a.Place)
				}
				continue
			}
			host, port := a.Place[:max(0, strings.LastIndex(a.Place, ":"))], a.Place[strings.LastIndex(a.Place, ":")+1:]
			if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
				t.Errorf("%q: place %q", s, a.Place)
			}
		}
	})
}
