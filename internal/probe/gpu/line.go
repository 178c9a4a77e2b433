// SPDX-License-Identifier: Apache-2.0

package gpu

import "time"

// line makes calls one after the other, and waits for none longer than its
// deadline: what does not come back is left to itself.
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

// try makes a call, and tells whether it came back in time. Then runs here once
// it has, however late: in try, or in settle.
func (l *line) try(what string, f, then func()) bool {
	c := &call{Hang: Hang{What: what, Since: time.Now()}, done: make(chan struct{}), then: then}
	go func() {
		defer close(c.done)
		f()
	}()
	timer := time.NewTimer(l.deadline)
	defer timer.Stop()
	select {
	case <-c.done:
		then()
		return true
	case <-timer.C:
		l.hung = append(l.hung, c)
		l.hangs++
		return false
	}
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
