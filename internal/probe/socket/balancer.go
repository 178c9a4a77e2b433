// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Balancers are programs of others at a group of processes that may choose who
// serves a Service when a socket connects or sends: no packet shows which
// Service was asked for. Run is for one goroutine, the rest is for any.
type Balancers struct {
	cgroup string
	log    *slog.Logger
	found  atomic.Pointer[balancing]
}

// balancing is what was found, and why no more.
type balancing struct {
	programs []string
	problem  string
}

// lookAgain is how long a load balancer that is installed later is not known.
const lookAgain = 30 * time.Second

// balancerTypes are where an address is chosen. orb8 has no program there.
var balancerTypes = [...]ebpf.AttachType{
	ebpf.AttachCGroupInet4Connect, ebpf.AttachCGroupInet6Connect,
	ebpf.AttachCGroupUDP4Sendmsg, ebpf.AttachCGroupUDP6Sendmsg,
}

// OpenBalancers looks at a group, and at what is above it, for the first time.
func OpenBalancers(cgroup string, log *slog.Logger) *Balancers {
	b := &Balancers{cgroup: cgroup, log: log}
	b.found.Store(&balancing{})
	b.look()
	return b
}

// Any tells whether there is one. Nil has none.
func (b *Balancers) Any() bool { return b != nil && len(b.found.Load().programs) > 0 }

// Problems tells of them.
func (b *Balancers) Problems() []string {
	if b == nil {
		return nil
	}
	found := b.found.Load()
	switch {
	case len(found.programs) > 0:
		return []string{fmt.Sprintf("%s may answer for Services when sockets connect: which Service was asked for is not known, `unknown (socket LB)`",
			strings.Join(found.programs, ", "))}
	case found.problem != "":
		return []string{found.problem}
	}
	return nil
}

// Run looks again and again.
func (b *Balancers) Run(ctx context.Context) error {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			b.look()
		}
	}
}

func (b *Balancers) look() {
	was, now := b.found.Load(), &balancing{}
	for _, at := range balancerTypes {
		names, err := programsAt(b.cgroup, at)
		if err != nil {
			now.problem = fmt.Sprintf("whether a load balancer answers for Services when sockets connect is not known: %v", explain(err))
			break
		}
		now.programs = append(now.programs, names...)
	}
	slices.Sort(now.programs)
	now.programs = slices.Compact(now.programs)
	b.found.Store(now)
	if !slices.Equal(now.programs, was.programs) {
		b.log.Info("programs that may answer for Services when sockets connect", "programs", now.programs)
	}
}

// programsAt names the programs that run at a group, those of groups above it
// included.
func programsAt(cgroup string, at ebpf.AttachType) ([]string, error) {
	dir, err := unix.Open(cgroup, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", cgroup, err)
	}
	defer func() { _ = unix.Close(dir) }()
	all, err := link.QueryPrograms(link.QueryOptions{Target: dir, Attach: at, QueryFlags: unix.BPF_F_QUERY_EFFECTIVE})
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
		return nil, nil // nobody can attach such a program either
	}
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(all.Programs))
	for _, p := range all.Programs {
		names = append(names, programName(p.ID))
	}
	return names, nil
}

// programName is at most 15 letters long. Asking takes SYS_ADMIN.
func programName(id ebpf.ProgramID) string {
	unnamed := fmt.Sprintf("program %d", id)
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return unnamed
	}
	defer func() { _ = p.Close() }()
	info, err := p.Info()
	if err != nil || info.Name == "" {
		return unnamed
	}
	return info.Name
}
