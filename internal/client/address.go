// SPDX-License-Identifier: Apache-2.0

package client

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// Role is what answers at an address.
type Role string

// The roles; the words are those of the messages.
const (
	Agent      Role = "agent"
	AgentPod   Role = "agent pod"
	Server     Role = "server"
	Standalone Role = "standalone"
)

// The ports where agents and servers speak gRPC when none is given.
const (
	AgentPort  = 9090
	ServerPort = 8080
)

// Address is where an Observer may be found.
type Address struct {
	Role Role
	// HOST:PORT, or the path of a unix socket, which starts with a slash; of a pod
	// NAMESPACE/POD.
	Place string
}

// String reads as in "no answer from the agent at localhost:9090".
func (a Address) String() string {
	switch a.Role {
	case Standalone:
		return "this machine (standalone)"
	case AgentPod:
		return "the agent pod " + a.Place
	}
	return "the " + string(a.Role) + " at " + a.Place
}

func (a Address) network() string {
	if strings.HasPrefix(a.Place, "/") {
		return "unix"
	}
	return "tcp"
}

// ParseAgent reads the value of --agent: HOST, HOST:PORT, NAMESPACE/POD,
// unix:///PATH or /PATH.
func ParseAgent(s string) (Address, error) {
	if path, ok := strings.CutPrefix(s, "unix://"); ok {
		if !filepath.IsAbs(path) {
			return Address{}, fmt.Errorf("%q: the path of a unix socket starts with a slash, as in unix:///run/orb8/agent.sock", s)
		}
		s = path
	}
	if filepath.IsAbs(s) {
		return Address{Agent, filepath.Clean(s)}, nil
	}
	if ns, pod, ok := strings.Cut(s, "/"); ok && objectName(ns) && objectName(pod) {
		return Address{AgentPod, s}, nil
	}
	place, err := hostPort(s, AgentPort)
	return Address{Agent, place}, err
}

// objectName tells whether s can be the name of a pod: it becomes part of a path.
func objectName(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	return s != "" && strings.Trim(s, letters+"-.") == "" && strings.Contains(letters, s[:1])
}

// ParseServer reads the value of --server: HOST or HOST:PORT.
func ParseServer(s string) (Address, error) {
	place, err := hostPort(s, ServerPort)
	return Address{Server, place}, err
}

// hostPort completes HOST, HOST:PORT, IPv6 or [IPv6]:PORT.
func hostPort(s string, defaultPort int) (string, error) {
	allowed := "HOST, HOST:PORT and [IPV6]:PORT"
	if defaultPort == AgentPort {
		allowed += ", and NAMESPACE/POD"
	}
	bad := fmt.Errorf("%q is no address: allowed are %s", s, allowed)
	if s == "" || strings.ContainsAny(s, "/ \t\n@") {
		return "", bad
	}
	if ip, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return net.JoinHostPort(ip.String(), strconv.Itoa(defaultPort)), nil
	}
	if !strings.Contains(s, ":") {
		return net.JoinHostPort(s, strconv.Itoa(defaultPort)), nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", bad
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("%q: port %q is not a number from 1 to 65535", s, port)
	}
	if host == "" {
		host = "localhost"
	}
	return net.JoinHostPort(host, port), nil
}
