// SPDX-License-Identifier: Apache-2.0

package client

import (
	"strings"
	"testing"
)

func TestParseAgent(t *testing.T) {
	for in, want := range map[string]string{
		"localhost":                   "localhost:9090",
		"node-7:1234":                 "node-7:1234",
		":9090":                       "localhost:9090",
		"10.0.0.1":                    "10.0.0.1:9090",
		"fd00::1":                     "[fd00::1]:9090",
		"[fd00::1]":                   "[fd00::1]:9090",
		"[fd00::1]:80":                "[fd00::1]:80",
		"unix:///run/orb8/agent.sock": "/run/orb8/agent.sock",
		"/run//orb8/agent.sock":       "/run/orb8/agent.sock",
	} {
		got, err := ParseAgent(in)
		if err != nil || got != (Address{Agent, want}) {
			t.Errorf("ParseAgent(%q) = %v, %v, want %s", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"":                  "is no address",
		"a b":               "is no address",
		"http://a:80":       "is no address",
		"a:b:c":             "is no address",
		"a:":                "not a number from 1 to 65535",
		"a:70000":           "not a number from 1 to 65535",
		"unix://agent.sock": "starts with a slash",
		"a/b/c":             "is no address",
		"a/":                "is no address",
		"a/b?x":             "is no address",
	} {
		if got, err := ParseAgent(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseAgent(%q) = %v, %v, want an error with %q", in, got, err, want)
		}
	}
	if got, err := ParseAgent("orb8-system/orb8-x7x2p"); err != nil || got != (Address{AgentPod, "orb8-system/orb8-x7x2p"}) || got.String() != "the agent pod orb8-system/orb8-x7x2p" {
		t.Errorf("a pod: %v, %v", got, err)
	}
}

func TestParseServer(t *testing.T) {
	if got, err := ParseServer("orb8.example.com"); err != nil || got != (Address{Server, "orb8.example.com:8080"}) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := ParseServer("/run/orb8/server.sock"); err == nil {
		t.Error("a server has no socket")
	}
}
