// SPDX-License-Identifier: Apache-2.0

package render

import (
	"net"
	"strconv"
	"strings"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
)

// Name is who an end is, as well as it is known: pod, node, container, unit or
// process of the machine, outside name, address.
func Name(e *orb8v1.End) string {
	switch class := event.Class(e.GetClass()); {
	case e.GetPod() != "":
		return e.GetNamespace() + "/" + e.GetPod()
	case strings.HasPrefix(e.GetClass(), string(event.ClassKernel)), class == event.ClassAPIServer:
		return e.GetClass()
	case class == event.ClassNode && e.GetNode() != "":
		return "node/" + e.GetNode()
	case e.GetContainer() != "":
		return "-/" + shortID(e.GetContainer())
	// A unit that is no service is the login session or the container's scope:
	// the process says more.
	case strings.HasSuffix(e.GetUnit(), ".service"):
		return "-/" + e.GetUnit()
	case e.GetProcess() != "":
		return "-/" + e.GetProcess()
	case e.GetUnit() != "":
		return "-/" + e.GetUnit()
	case e.GetFqdn() != "":
		return outsideName(e)
	}
	return e.GetIp()
}

// outsideName is quoted where it could be taken for something else: whoever asks
// the DNS, or speaks TLS, may say "kube-system/coredns" or "10.0.0.1". Who wrote
// the agent's list of names knows what is in it.
func outsideName(e *orb8v1.End) string {
	name := e.GetFqdn()
	if e.GetFqdnSource() == string(event.NameCIDR) || isHostName(name) {
		return name
	}
	return `"` + name + `"`
}

// isHostName tells whether a name has the letters that hosts' have, and a dot, and
// is no address.
func isHostName(name string) bool {
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	}
	if strings.ContainsFunc(name, odd) || strings.HasPrefix(name, "-") {
		return false
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	return len(last) < len(name) && strings.Trim(last, "0123456789") != ""
}

// remoteName is a remote end with its port: what was asked for, and where that
// is a Service, who serves it, as shop/cart:80→cart-x2x7q:8080.
func remoteName(f *orb8v1.FlowRecord) string { return whoServes(f, hasPorts(f)) }

func whoServes(f *orb8v1.FlowRecord, hasPort bool) string {
	e := f.GetRemote()
	service := e.GetService()
	if service == "" {
		return nameAndPort(e, hasPort)
	}
	if !strings.Contains(service, "/") {
		return service + "→" + nameAndPort(e, hasPort) // nor is its port known
	}
	asked := service
	if hasPort {
		asked += ":" + strconv.Itoa(int(e.GetPort()))
	}
	behind := Name(e)
	if behind == e.GetIp() {
		// Not known.
		if behind = f.GetTranslatedRemote().GetIp(); behind == "" {
			return asked
		}
	}
	// The Service has said the namespace.
	namespace, _, _ := strings.Cut(service, "/")
	behind = strings.TrimPrefix(behind, namespace+"/")
	if port := f.GetTranslatedRemote().GetPort(); hasPort && port != 0 && port != e.GetPort() {
		behind = joinPort(behind, port, behind == f.GetTranslatedRemote().GetIp())
	}
	return asked + "→" + behind
}

// shortID is a container's id as runtimes print it: the first 12 of 64 digits.
// A name stays whole.
func shortID(id string) string {
	if len(id) == 64 {
		return id[:12]
	}
	return id
}

// nameAndPort is Name with the port, where there is one.
func nameAndPort(e *orb8v1.End, hasPort bool) string {
	name := Name(e)
	if !hasPort {
		return name
	}
	return joinPort(name, e.GetPort(), name == e.GetIp())
}

// joinPort puts the port behind a name or an address.
func joinPort(name string, port uint32, isIP bool) string {
	text := strconv.Itoa(int(port))
	if isIP {
		return net.JoinHostPort(name, text)
	}
	return name + ":" + text
}

// translation is the tuple on the wire, where it is another than the socket's.
func translation(f *orb8v1.FlowRecord) string {
	local, remote := f.GetTranslatedLocal(), f.GetTranslatedRemote()
	if local == nil || remote == nil {
		return ""
	}
	if !hasPorts(f) {
		return local.GetIp() + "→" + remote.GetIp()
	}
	return joinPort(local.GetIp(), local.GetPort(), true) + "→" + joinPort(remote.GetIp(), remote.GetPort(), true)
}

// hasPorts tells whether a record's ports are known numbers. Of protocols
// without ports, and of later fragments, they are not.
func hasPorts(f *orb8v1.FlowRecord) bool {
	switch event.Protocol(f.GetProtocol()) {
	case event.TCP, event.UDP:
		return !f.GetFragments()
	}
	return f.GetLocal().GetPort() != 0 || f.GetRemote().GetPort() != 0
}

func protocolName(n uint32) string {
	if n > 255 {
		return strconv.FormatUint(uint64(n), 10)
	}
	return event.Protocol(n).String()
}

// opener is the word of the wire for who opened a connection.
func opener(o orb8v1.Opener) event.Opener {
	switch o {
	case orb8v1.Opener_OPENER_LOCAL:
		return event.OpenerLocal
	case orb8v1.Opener_OPENER_REMOTE:
		return event.OpenerRemote
	}
	return event.OpenerUnknown
}

// arrow points from who opened the connection to the other end.
func arrow(o orb8v1.Opener) string {
	switch o {
	case orb8v1.Opener_OPENER_LOCAL:
		return "→"
	case orb8v1.Opener_OPENER_REMOTE:
		return "←"
	}
	return "—"
}
