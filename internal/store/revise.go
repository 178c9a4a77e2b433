// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/binary"

	"github.com/orb8/orb8/internal/event"
)

// Each calls visit for each connection of this place, the retired ones
// included. Visit may retire or carry what it is given.
func (s *Flows) Each(visit func(*event.Flow)) {
	for i := range s.used {
		if f := s.at(i); f.Epoch != 0 && !f.Carried {
			visit(f)
		}
	}
}

// Retire makes a connection one of the past: it stays until it expires, with
// all that is known of it, and what moves under its tuple from now on is another
// connection. Its Conn is told apart by what is Reserved.
func (s *Flows) Retire(c event.Conn) {
	i, ok := s.index[c]
	if !ok || s.at(i).Carried {
		return
	}
	past := c
	for {
		if s.retired++; s.retired == 0 {
			s.retired = 1 // 0 is the one of now
		}
		binary.NativeEndian.PutUint16(past.Reserved[:], s.retired)
		if _, taken := s.index[past]; !taken {
			break
		}
	}
	s.forgetReplies(i)
	delete(s.index, c)
	s.at(i).Conn = past
	s.index[past] = i
}

// Carry makes a connection, with all that it moved, one that is carried for
// others: its socket is not of this place. It stays so while it is that socket's.
func (s *Flows) Carry(c event.Conn) {
	if i, ok := s.index[c]; ok && !s.at(i).Carried {
		s.carry(s.at(i))
	}
}

func (s *Flows) carry(f *event.Flow) {
	sums := s.sums(f.Conn.Iface())
	sums.Live.Sub(f.Total)
	sums.Carried.Add(f.Total)
	f.Carried = true
	s.carried++
}

// returns tells that what was carried has become a connection of this place. The
// tap says own of one that was carried for its socket, too, and goes on to: there
// it takes another socket.
func returns(f *event.Flow, d *event.Delta) bool {
	return d.Place == event.PlaceOwn && f.Carried && (f.Cookie == 0 || d.Cookie != 0 && d.Cookie != f.Cookie)
}
