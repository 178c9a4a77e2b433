// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Who sends from a new namespace: one a packet a millisecond as soon as it can,
// the other its first packet so long after the namespace was made.
const (
	eagerPort = 22001
	laterPort = 22002
	later     = 20 * time.Millisecond
	eagerStep = time.Millisecond
	eagerTime = 100 * time.Millisecond // at least
)

// sent is what left a new namespace.
type sent struct {
	*room
	eager []time.Time
}

// created makes namespaces one after the other. How long each went untapped the
// agent says itself; which of its packets were the first to be counted shows
// how long it really was.
func (b *bench) created(a *agent, t tenancy) (err error) {
	var rooms []*sent
	defer func() {
		for _, s := range rooms {
			err = errors.Join(err, t.yard.remove(s.room))
		}
	}()
	for i := range t.more {
		s := &sent{}
		if s.room, err = t.yard.add(len(t.there)+i, s.send); err != nil {
			return err
		}
		rooms = append(rooms, s)
	}
	spaces, err := a.patiently(rooms)
	if err != nil {
		return err
	}
	counted, err := a.counted()
	if err != nil {
		return err
	}
	var untapped, first, setUp series
	var seen, never, late int
	for _, s := range rooms {
		took := time.Duration(spaces[s.inode].Untapped)
		if !spaces[s.inode].Tapped {
			never++
			took = time.Since(s.created)
		}
		untapped = append(untapped, ms(took))
		setUp = append(setUp, ms(s.up.Sub(s.created)))
		first = append(first, ms(s.first(counted[s.inode].eager).Sub(s.up)))
		if counted[s.inode].later == 1 {
			seen++
		}
		if counted[s.inode].eager == 0 {
			late++
		}
	}
	row := tail(t.title(fmt.Sprintf("namespace created to tapped, %d there, p99", len(t.there))), untapped)
	row.Bar = atMost(20)
	if never > 0 {
		row.Baselines = append(row.Baselines, baseline{"never", float64(never), ""})
	}
	b.add(row)
	row = tail(t.title("  its veth up to first packet counted, p99"), first)
	row.Baselines = append(row.Baselines, baseline{"created to veth up, median", setUp.median(), "ms"})
	if late > 0 {
		row.Baselines = append(row.Baselines, baseline{"not within " + eagerTime.String(), float64(late), ""})
	}
	b.add(row)
	b.add(result{
		Measure: t.title("  first packet " + later.String() + " after creation, counted"), Unit: "%",
		Value: 100 * float64(seen) / float64(len(rooms)), Bar: atLeast(100),
	})
	return nil
}

// patiently asks about rooms until the last is tapped, or should have been.
func (a *agent) patiently(rooms []*sent) (map[uint64]spaceStatus, error) {
	for start := time.Now(); ; time.Sleep(time.Second / 2) {
		spaces, err := a.namespaces()
		all := true
		for _, s := range rooms {
			all = all && spaces[s.inode].Tapped
		}
		if err != nil || all || time.Since(start) > 10*time.Second {
			return spaces, err
		}
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func tail(measure string, s series) result {
	row := result{Measure: measure, Unit: "ms"}.of(s)
	row.Value = s.quantile(0.99)
	row.Baselines = []baseline{{"median", s.median(), "ms"}, {"most", s.quantile(1), "ms"}}
	return row
}

// first is when the first packet was sent that was counted, if n were; the last
// one where none was.
func (s *sent) first(n int) time.Time {
	missed := max(0, len(s.eager)-n)
	return s.eager[min(missed, len(s.eager)-1)]
}

// send runs in the room.
func (s *sent) send(r *room) error {
	fd, err := boundSocket(netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	packet := make([]byte, payload)
	to := func(port int) error {
		return unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: r.gate.As4(), Port: port})
	}
	waits := true
	for due := r.up; due.Sub(r.up) < eagerTime || waits; due = due.Add(eagerStep) {
		time.Sleep(time.Until(due))
		if waits && time.Since(r.created) >= later {
			waits = false
			if err := to(laterPort); err != nil {
				return fmt.Errorf("send: %w", err)
			}
		}
		s.eager = append(s.eager, time.Now())
		if err := to(eagerPort); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	return nil
}

// spaceStatus is what the agent tells of a namespace.
type spaceStatus struct {
	Netns    uint64 `json:"netns"`
	Tapped   bool   `json:"tapped"`
	Untapped int64  `json:"untapped_ns"`
}

// namespaces are what the agent knows, by inode.
func (a *agent) namespaces() (map[uint64]spaceStatus, error) {
	out, err := a.ask("status", "-o", "json")
	if err != nil {
		return nil, err
	}
	var status struct {
		Namespaces []spaceStatus `json:"namespaces"`
	}
	if err := json.Unmarshal(out, &status); err != nil {
		return nil, fmt.Errorf("orb8 status: %w", err)
	}
	spaces := make(map[uint64]spaceStatus, len(status.Namespaces))
	for _, s := range status.Namespaces {
		spaces[s.Netns] = s
	}
	return spaces, nil
}

// arrivals are packets of a room that were counted.
type arrivals struct{ eager, later int }

// counted asks what was counted in each namespace, by inode.
func (a *agent) counted() (map[uint64]arrivals, error) {
	ports := strconv.Itoa(eagerPort) + "," + strconv.Itoa(laterPort)
	out, err := a.ask("flows", "-o", "json", "--limit", "10000", "--port", ports)
	if err != nil {
		return nil, err
	}
	rooms := map[uint64]arrivals{}
	for line := range bytes.Lines(out) {
		var f struct {
			Netns  uint64 `json:"netns"`
			Tx     int    `json:"tx_packets"`
			Remote struct {
				Port int `json:"port"`
			} `json:"remote"`
		}
		if err := json.Unmarshal(line, &f); err != nil {
			return nil, fmt.Errorf("orb8 flows: %w", err)
		}
		r := rooms[f.Netns]
		switch f.Remote.Port {
		case eagerPort:
			r.eager += f.Tx
		case laterPort:
			r.later += f.Tx
		}
		rooms[f.Netns] = r
	}
	return rooms, nil
}
