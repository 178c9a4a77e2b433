// SPDX-License-Identifier: Apache-2.0

package rdma

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pairsShare is how many times as long as an answer took the next is waited for:
	// the kernel asks the device about each queue pair, a few microseconds each.
	pairsShare = 50
	// pairsRetry is how long a kernel that has no rdma netlink is left alone.
	pairsRetry = time.Minute
	// pairsLate is after how long an answer that is not there is one that hangs.
	pairsLate = 5 * time.Second
)

// pairs is who has queue pairs on a device, as the kernel last told.
type pairs struct {
	busy       bool
	since, due time.Time
	pids       []uint32
	known      bool
}

// told is what stands in a snapshot.
func (p *pairs) told() ([]uint32, bool) { return p.pids, p.known }

// askFor asks who has queue pairs on a device of the host's. Those of a pod's
// are the pod's.
func (r *round) askFor(d *device, now time.Time) {
	p := &d.pairs
	if p.busy && now.Sub(p.since) > pairsLate {
		p.pids, p.known = nil, false
	}
	if d.netns != 0 || p.busy || now.Before(p.due) {
		return
	}
	name, began := d.name, time.Now()
	var pids []uint32
	var err error
	var took time.Duration
	p.busy = r.crew.begin(false, func() {
		pids, err = r.ask(name)
		took = time.Since(began)
	}, func() {
		p.busy = false
		p.pids, p.known = pids, err == nil
		p.due = now.Add(max(r.Pairs, min(pairsShare*took, pairsRetry)))
		if errors.Is(err, os.ErrNotExist) {
			return // unplugged meanwhile
		}
		r.pairsErr = err
		if err != nil {
			p.due = now.Add(pairsRetry)
		}
	})
	if p.busy {
		p.since = now
	}
}

// sayPairs tells why it is not known who has queue pairs, where there are devices.
func (r *round) sayPairs(now time.Time, say func(string, ...any)) {
	asked := false
	for _, d := range r.order {
		if d.netns != 0 {
			continue
		}
		asked = true
		if d.pairs.busy && now.Sub(d.pairs.since) > pairsLate {
			say("queue pairs of RDMA device %q: the kernel has not answered since %s",
				d.name, d.pairs.since.Format(time.TimeOnly))
		}
	}
	if asked && r.pairsErr != nil {
		say("queue pairs of RDMA devices: %v; without them it is not told which processes share a device", r.pairsErr)
	}
}

// askPairs asks the kernel.
func askPairs(device string) ([]uint32, error) {
	n, err := openNetlink()
	if err != nil {
		return nil, err
	}
	defer n.close()
	var index *uint32
	if err := n.dump(cmdGet, nil, func(body []byte) error {
		name, i, err := deviceIndex(body)
		if err == nil && name == device {
			index = &i
		}
		return err
	}); err != nil {
		return nil, err
	}
	if index == nil {
		return nil, fmt.Errorf("RDMA device %q: %w", device, os.ErrNotExist)
	}
	seen := map[uint32]bool{}
	err = n.dump(cmdResQP, index, func(body []byte) error {
		return pairPIDs(body, func(pid uint32) {
			if len(seen) < mostPIDs {
				seen[pid] = true
			}
		})
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) {
		err = fmt.Errorf("RDMA device %q: %w", device, os.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	pids := make([]uint32, 0, len(seen))
	for pid := range seen {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return pids, nil
}
