// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"slices"

	"github.com/orb8/orb8/internal/event"
)

// place is where a server is asked for: without an address at each node, without
// port and protocol at all of an address.
type place struct {
	ip       event.IP
	port     uint16
	protocol event.Protocol
}

// service is one that has been told of, or that endpoints say they are of.
type service struct {
	identity *event.Identity
	told     *Service
	// Of slices of endpoints.
	refs int
}

// Service that has an address, port and protocol; nil where none does. It is of
// class service and says namespace and name. Port and protocol 0: the one that
// has the whole address.
func (m *Map) Service(ip event.IP, port uint16, protocol event.Protocol) *event.Identity {
	return only(m.fronts[place{ip, port, protocol}])
}

// NodePort gives the Service that has a port on each node; nil where none does.
func (m *Map) NodePort(port uint16, protocol event.Protocol) *event.Identity {
	return only(m.fronts[place{port: port, protocol: protocol}])
}

// only gives what is not of several: there is no telling which is meant.
func only(of []*service) *event.Identity {
	if len(of) == 0 {
		return nil
	}
	for _, s := range of[1:] {
		if s != of[0] {
			return nil
		}
	}
	return of[0].identity
}

// Headless gives the Service, namespace/name, that an endpoint serves and no
// other Service asks for; "" where there is none: then nothing tells by which
// name it was found.
func (m *Map) Headless(ip event.IP, port uint16, protocol event.Protocol) string {
	var found *service
	for _, of := range m.serves(ip, port, protocol) {
		for _, s := range of {
			if found != nil && s != found {
				return ""
			}
			found = s
		}
	}
	if found == nil || found.told == nil || !found.told.Headless {
		return ""
	}
	return found.identity.Service
}

// Endpoint tells that an endpoint serves a Service that has addresses of its
// own: who connects to it may have asked for those.
func (m *Map) Endpoint(ip event.IP, port uint16, protocol event.Protocol) bool {
	for _, of := range m.serves(ip, port, protocol) {
		for _, s := range of {
			if s.told != nil && !s.told.Headless {
				return true
			}
		}
	}
	return false
}

// APIServer tells that an endpoint is the cluster's API server.
func (m *Map) APIServer(ip event.IP, port uint16, protocol event.Protocol) bool {
	for _, of := range m.serves(ip, port, protocol) {
		for _, s := range of {
			if s.identity.Service == "default/kubernetes" {
				return true
			}
		}
	}
	return false
}

// serves gives those that an endpoint serves at a port, and at all ports.
func (m *Map) serves(ip event.IP, port uint16, protocol event.Protocol) [2][]*service {
	if len(m.backends) == 0 {
		return [2][]*service{}
	}
	return [2][]*service{m.backends[place{ip, port, protocol}], m.backends[place{ip: ip}]}
}

func (m *Map) service(namespace, name string) *service {
	key := namespace + "/" + name
	s := m.services[key]
	if s == nil {
		s = &service{identity: &event.Identity{Class: event.ClassService, Namespace: namespace, Service: key}}
		m.services[key] = s
	}
	return s
}

func (m *Map) release(s *service) {
	if s.told == nil && s.refs == 0 {
		delete(m.services, s.identity.Service)
	}
}

// setService takes in a Service, or that it is gone.
func (m *Map) setService(key string, to *Service) {
	s := m.services[key]
	if s == nil {
		if to == nil || to.Namespace+"/"+to.Name != key {
			return
		}
		s = m.service(to.Namespace, to.Name)
	}
	was := s.told
	if was != nil && to != nil && was.Headless == to.Headless && slices.Equal(was.IPs, to.IPs) && slices.Equal(was.Ports, to.Ports) {
		return
	}
	if was != nil {
		for p := range was.places {
			m.leavePlace(m.fronts, p, s)
		}
	}
	s.told = to
	if to != nil {
		for p := range to.places {
			m.takePlace(m.fronts, p, s)
		}
	}
	if s.refs > 0 && (was == nil || to == nil || was.Headless != to.Headless) {
		m.touched.All = true // what its endpoints are called by
	}
	m.release(s)
}

// places of a Service: each port at each address, the whole of each address,
// and ports of the nodes.
func (s *Service) places(yield func(place) bool) {
	for _, ip := range s.IPs {
		if !yield(place{ip: ip}) {
			return
		}
		for _, p := range s.Ports {
			if p.Port != 0 && !yield(place{ip, p.Port, p.Protocol}) {
				return
			}
		}
	}
	for _, p := range s.Ports {
		if p.NodePort != 0 && !yield(place{port: p.NodePort, protocol: p.Protocol}) {
			return
		}
	}
}

// setEndpoints takes in a slice of endpoints, or that it is gone.
func (m *Map) setEndpoints(key string, to *Endpoints) {
	was := m.slices[key]
	if was != nil && to != nil && was.Namespace == to.Namespace && was.Service == to.Service &&
		slices.Equal(was.IPs, to.IPs) && slices.Equal(was.Ports, to.Ports) {
		return
	}
	if to != nil {
		m.service(to.Namespace, to.Service).refs++ // before the old ones let go of it
	}
	if was != nil {
		s := m.service(was.Namespace, was.Service)
		for p := range was.places {
			m.leavePlace(m.backends, p, s)
		}
		s.refs--
		m.release(s)
		delete(m.slices, key)
	}
	if to != nil {
		s := m.service(to.Namespace, to.Service)
		for p := range to.places {
			m.takePlace(m.backends, p, s)
		}
		m.slices[key] = to
	}
}

// places of endpoints.
func (e *Endpoints) places(yield func(place) bool) {
	for _, ip := range e.IPs {
		if len(e.Ports) == 0 && !yield(place{ip: ip}) {
			return
		}
		for _, p := range e.Ports {
			if !yield(place{ip, p.Port, p.Protocol}) {
				return
			}
		}
	}
}

func (m *Map) takePlace(places map[place][]*service, p place, s *service) {
	if m.places >= placesPerPod*m.cfg.MaxPods {
		m.crowded++
		return
	}
	m.places++
	places[p] = append(places[p], s)
	m.touchPlace(p)
}

func (m *Map) leavePlace(places map[place][]*service, p place, s *service) {
	of := places[p]
	i := slices.Index(of, s)
	if i < 0 {
		return // there was no room
	}
	m.places--
	if of = slices.Delete(of, i, i+1); len(of) == 0 {
		delete(places, p)
	} else {
		places[p] = of
	}
	m.touchPlace(p)
}

func (m *Map) touchPlace(p place) {
	if p.ip == (event.IP{}) {
		m.touched.All = true
		return
	}
	m.touched.address(p.ip)
}
