// SPDX-License-Identifier: Apache-2.0

package gpu

import "time"

// line makes calls, and waits for none longer than its deadline: what does not come
// back is left to itself.
type line struct {
	deadline time.Duration
	hung     []*call
	hangs    uint64
}

type call struct {
	Hang
	done chan struct{}
	then func()
}

// begin makes a call. Then runs once it has come back, however late: in wait, or
// in settle.
func begin(what string, f, then func()) *call {
	c := &call{Hang: Hang{What: what, Since: time.Now()}, done: make(chan struct{}), then: then}
	go func() {
		defer close(c.done)
		f()
	}()
	return c
}

// try makes a call, and tells whether it came back in time.
func (l *line) try(what string, f, then func()) bool {
	return l.wait([]*call{begin(what, f, then)})
}

// wait waits for calls that were made beside each other, and tells whether all came
// back in time. What comes of them runs when nothing is waited for any more: it may
// end what others still use.
func (l *line) wait(calls []*call) bool {
	timer := time.NewTimer(l.deadline)
	defer timer.Stop()
	late := false
	back := make([]*call, 0, len(calls))
	for _, c := range calls {
		if !late {
			select {
			case <-c.done:
			case <-timer.C:
				late = true
			}
		}
		select {
		case <-c.done:
			back = append(back, c)
		default:
			l.hung = append(l.hung, c)
			l.hangs++
		}
	}
	for _, c := range back {
		c.then()
	}
	return len(back) == len(calls)
}

// settle looks which calls have come back since.
func (l *line) settle() {
	still := l.hung[:0]
	var back []*call
	for _, c := range l.hung {
		select {
		case <-c.done:
			back = append(back, c)
		default:
			still = append(still, c)
		}
	}
	clear(l.hung[len(still):])
	l.hung = still
	for _, c := range back {
		c.then()
	}
}
