// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"slices"

	"github.com/orb8/orb8/internal/event"
)

// door is where a Service is asked for, or served, at one address: a port, or
// with 0 and 0 the whole of it.
type door struct {
	service  *service
	port     uint16
	protocol event.Protocol
	api      bool // the service is the API server's: told here, so that nothing else is read
}

func (p *place) door(s *service) door {
	return door{service: s, port: p.port, protocol: p.protocol, api: s.identity.Service == apiServer}
}

// doors of one address are few.
type doors []door

// service is one that has been told of, or that endpoints say they are of.
type service struct {
	identity *event.Identity
	told     *Service
	// Of slices of endpoints.
	refs int
}

// apiServer is the Service that the API server makes for itself.
const apiServer = "default/kubernetes"

// only gives the one Service that is asked for at a door: of several there is
// no telling which is meant.
func (ds doors) only(port uint16, protocol event.Protocol) *event.Identity {
	var found *service
	for i := range ds {
		if d := &ds[i]; d.port == port && d.protocol == protocol && d.service != found {
			if found != nil {
				return nil
			}
			found = d.service
		}
	}
	if found == nil {
		return nil
	}
	return found.identity
}

// leads tells that a door opens for a port.
func (d *door) leads(port uint16, protocol event.Protocol) bool {
	return d.port == port && d.protocol == protocol || d.port == 0 && d.protocol == 0
}

// Service that has a port and protocol of an address; nil where none does. It is
// of class service and says namespace and name. Port and protocol 0: the one
// that has the whole address.
func (a *Address) Service(port uint16, protocol event.Protocol) *event.Identity {
	if a == nil || len(a.fronts) == 0 {
		return nil
	}
	return a.fronts.only(port, protocol)
}

// NodePort gives the Service that has a port on each node; nil where none does.
func (m *Map) NodePort(port uint16, protocol event.Protocol) *event.Identity {
	return m.At(event.IP{}).Service(port, protocol)
}

// Headless gives the Service without addresses that an endpoint serves, and no
// other Service; nil where there is none: nothing tells by which name it was
// found.
func (a *Address) Headless(port uint16, protocol event.Protocol) *event.Identity {
	if a == nil {
		return nil
	}
	var found *service
	for i := range a.backends {
		d := &a.backends[i]
		if !d.leads(port, protocol) || d.service == found {
			continue
		}
		if found != nil {
			return nil
		}
		found = d.service
	}
	if found == nil || found.told == nil || !found.told.Headless {
		return nil
	}
	return found.identity
}

// Endpoint tells that an endpoint serves a Service that has addresses of its
// own: who connects to it may have asked for those.
func (a *Address) Endpoint(port uint16, protocol event.Protocol) bool {
	if a == nil {
		return false
	}
	for i := range a.backends {
		if d := &a.backends[i]; d.leads(port, protocol) && d.service.told != nil && !d.service.told.Headless {
			return true
		}
	}
	return false
}

// APIServer tells that an endpoint is the cluster's API server. Port and
// protocol 0: whether one is at the address, at any port.
func (a *Address) APIServer(port uint16, protocol event.Protocol) bool {
	if a == nil {
		return false
	}
	for i := range a.backends {
		if d := &a.backends[i]; d.api && (port == 0 && protocol == 0 || d.leads(port, protocol)) {
			return true
		}
	}
	return false
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
			m.shut(front, p, s)
		}
	}
	s.told = to
	if to != nil {
		for p := range to.places {
			m.open(front, p, s)
		}
	}
	if s.refs > 0 && (was == nil || to == nil || was.Headless != to.Headless) {
		m.touched.All = true // what its endpoints are called by
	}
	m.release(s)
}

// place is a door and its address; without an address it is at each node.
type place struct {
	ip       event.IP
	port     uint16
	protocol event.Protocol
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
			m.shut(backend, p, s)
		}
		s.refs--
		m.release(s)
		delete(m.slices, key)
	}
	if to != nil {
		s := m.service(to.Namespace, to.Service)
		for p := range to.places {
			m.open(backend, p, s)
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

// side of a Service that a door is on.
type side uint8

const (
	front side = iota
	backend
)

func (a *Address) side(of side) *doors {
	if of == front {
		return &a.fronts
	}
	return &a.backends
}

// open puts a door where it is.
func (m *Map) open(at side, p place, s *service) {
	if m.places >= placesPerPod*m.cfg.MaxPods {
		m.crowded++
		return
	}
	m.places++
	ds := m.address(p.ip).side(at)
	*ds = append(*ds, p.door(s))
	m.touchPlace(p)
}

func (m *Map) shut(at side, p place, s *service) {
	a := m.addresses[p.ip]
	if a == nil {
		return
	}
	ds := a.side(at)
	i := slices.Index(*ds, p.door(s))
	if i < 0 {
		return // there was no room
	}
	m.places--
	*ds = slices.Delete(*ds, i, i+1)
	m.tidy(p.ip, a)
	m.touchPlace(p)
}

func (m *Map) touchPlace(p place) {
	if p.ip == (event.IP{}) {
		m.touched.All = true
		return
	}
	m.touched.address(p.ip)
}
