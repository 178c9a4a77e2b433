// SPDX-License-Identifier: Apache-2.0

package lookup

// order holds things from the one that was pushed first to the last.
type order[T any] struct {
	first, last *place[T]
	len         int
}

// place is where a thing is in an order; the thing holds it.
type place[T any] struct {
	of         *T
	in         *order[T]
	prev, next *place[T]
}

// oldest is the first one, or nil.
func (o *order[T]) oldest() *T {
	if o.first == nil {
		return nil
	}
	return o.first.of
}

// push makes a thing the last one, wherever it was.
func (o *order[T]) push(p *place[T], of *T) {
	p.drop()
	p.of, p.in, p.prev = of, o, o.last
	if o.last == nil {
		o.first = p
	} else {
		o.last.next = p
	}
	o.last = p
	o.len++
}

// drop takes a thing out of the order that it is in.
func (p *place[T]) drop() {
	o := p.in
	if o == nil {
		return
	}
	if p.prev == nil {
		o.first = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		o.last = p.prev
	} else {
		p.next.prev = p.prev
	}
	p.in, p.prev, p.next = nil, nil, nil
	o.len--
}
