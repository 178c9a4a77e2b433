// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/orb8/orb8/internal/event"
)

// Level is how much the labels of a series tell.
type Level uint8

// The levels; each tells what the one before does, and more.
const (
	Node Level = iota + 1
	Namespace
	Workload
	Pod
	PeerPod
)

var levelNames = [...]string{"", "node", "namespace", "workload", "pod", "peer"}

// ParseLevel reads the name of a level.
func ParseLevel(text string) (Level, bool) {
	for l := Node; l <= PeerPod; l++ {
		if text == levelNames[l] {
			return l, true
		}
	}
	return 0, false
}

func (l Level) String() string { return levelNames[l] }

// Other is the value of the labels of what is beyond the cap.
const Other = "__other__"

// Own is who the local end is. Of who is no pod Kind is the class.
type Own struct{ Namespace, Workload, Kind, Pod string }

// Peer is who the other end is.
type Peer struct{ Class, Namespace, Workload, Pod, FQDN string }

// Labels are those of what moves between two ends.
type Labels struct {
	Own      Own
	Peer     Peer
	Protocol string
}

var (
	others    = Own{Other, Other, Other, Other}
	otherPeer = Peer{Other, Other, Other, Other, Other}
)

// at leaves out what a level does not tell.
func (o Own) at(l Level) Own {
	if l < Pod {
		o.Pod = ""
	}
	if l < Workload {
		o.Workload, o.Kind = "", ""
	}
	if l < Namespace {
		o.Namespace = ""
	}
	return o
}

func (p Peer) at(l Level) Peer {
	if l < PeerPod {
		p.Pod, p.FQDN = "", ""
	}
	if l < Workload {
		p.Workload = ""
	}
	if l < Namespace {
		p.Namespace = ""
	}
	return p
}

func (l Level) own(id *event.Identity) Own {
	class, service := split(id)
	if class != event.ClassPod {
		return Own{Workload: Clean(service), Kind: Clean(string(class))}.at(l)
	}
	o := Own{Clean(id.Namespace), Clean(id.Workload.Name), Clean(id.Workload.Kind), Clean(id.Pod)}
	if o.Kind == "" {
		o.Kind = string(event.ClassPod) // it has not been told of yet
	}
	return o.at(l)
}

func (l Level) peer(id *event.Identity) Peer {
	class, service := split(id)
	p := Peer{Class: string(class)}
	switch class {
	case event.ClassPod:
		p.Namespace, p.Workload, p.Pod = Clean(id.Namespace), Clean(id.Workload.Name), Clean(id.Pod)
	case event.ClassService:
		namespace, name, _ := strings.Cut(id.Service, "/")
		p.Namespace, p.Workload = Clean(namespace), Clean(name)
	case event.ClassHost, event.ClassContainer:
		p.Class = string(event.ClassNode)
	case event.ClassKernel:
		p.Workload = Clean(service)
	case event.ClassExternal:
		p.FQDN = Clean(id.FQDN)
	}
	return p.at(l)
}

// split is the class without what the kernel's sockets are for, and that.
func split(id *event.Identity) (class event.Class, service string) {
	if id == nil {
		return event.ClassUnknown, ""
	}
	if rest, ok := strings.CutPrefix(string(id.Class), string(event.ClassKernel)+":"); ok {
		return event.ClassKernel, rest
	}
	return id.Class, ""
}

// maxValue bounds a label's value, in bytes.
const maxValue = 256

// Clean makes a name that comes from outside a label's value: text without
// control characters, and no longer than names are.
func Clean(s string) string {
	plain := len(s) <= maxValue
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= ' ' && s[i] < 0x7f
	}
	if plain {
		return s
	}
	s = strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(s, string(utf8.RuneError)))
	if len(s) <= maxValue {
		return s
	}
	end := maxValue
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}
