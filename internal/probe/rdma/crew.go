// SPDX-License-Identifier: Apache-2.0

package rdma

import "time"

// job is something that may hang: it runs beside the round, and owns what it
// works on until then has been called.
type job struct{ run, then func() }

// crew makes jobs. Its methods are the round's goroutine's.
type crew struct {
	back chan *job
	// Jobs that were begun since the last wait and are not back.
	fresh map[*job]bool
	// All that are not back; bounded, for each may hold a thread for good.
	out int
}

// mostJobs bounds those that are under way.
const mostJobs = 256

func newCrew() *crew {
	return &crew{back: make(chan *job, mostJobs), fresh: map[*job]bool{}}
}

// begin tells whether there was room. Then is called by settle or wait, once the
// job is back. One that is not awaited does not hold up wait.
func (c *crew) begin(awaited bool, run, then func()) bool {
	if c.out >= mostJobs {
		return false
	}
	j := &job{run, then}
	c.out++
	if awaited {
		c.fresh[j] = true
	}
	go func() {
		j.run()
		c.back <- j // has room for all
	}()
	return true
}

func (c *crew) take(j *job) {
	c.out--
	delete(c.fresh, j)
	j.then()
}

// settle takes what has come back.
func (c *crew) settle() {
	for {
		select {
		case j := <-c.back:
			c.take(j)
		default:
			return
		}
	}
}

// wait waits for what was begun since it was last called, but not for long.
func (c *crew) wait(most time.Duration) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	for len(c.fresh) > 0 {
		select {
		case j := <-c.back:
			c.take(j)
		case <-timer.C:
			clear(c.fresh)
			return
		}
	}
}
