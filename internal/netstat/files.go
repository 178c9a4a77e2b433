// SPDX-License-Identifier: Apache-2.0

package netstat

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxFile bounds what is read of a file: those of today's kernels have 6 KB.
const maxFile = 64 << 10

// reader reads the files of the namespace that its thread is in. It is for one
// goroutine at a time.
type reader struct {
	dir, sysctl string
	columns     map[string]int
	buf         []byte
}

func newReader(s *Sampler) *reader {
	return &reader{
		dir:    filepath.Join(s.cfg.Proc, "thread-self/net"),
		sysctl: filepath.Join(s.cfg.Proc, "sys/net/ipv4/tcp_max_tw_buckets"),
		// Shared, and never written again.
		columns: s.columns,
		buf:     make([]byte, maxFile),
	}
}

// counters reads those of the catalogue, in its order. What the running kernel
// does not count stays 0.
func (r *reader) counters(values []uint64) error {
	told := func(name []byte, n uint64) {
		if i, ok := r.columns[string(name)]; ok {
			values[i] = n
		}
	}
	for _, f := range []struct {
		name  string
		parse func([]byte, func([]byte, uint64))
	}{{"snmp", table}, {"netstat", table}, {"snmp6", list}} {
		text, err := r.file(filepath.Join(r.dir, f.name))
		if err != nil {
			return err
		}
		f.parse(text, told)
	}
	return nil
}

// inUse reads how many sockets there are.
func (r *reader) inUse() (u inUse, err error) {
	for _, name := range []string{"sockstat", "sockstat6"} {
		text, err := r.file(filepath.Join(r.dir, name))
		if err != nil {
			return u, err
		}
		gauges(text, u.add)
	}
	// Few have so many that it is worth to ask for the bound.
	if u.TimeWait < 1000 {
		return u, nil
	}
	if text, err := r.file(r.sysctl); err == nil {
		u.maxTimeWait, _ = number(bytes.TrimSpace(text))
	}
	return u, nil
}

// inUse is how many sockets there are of a kind.
type inUse struct {
	TCP, TimeWait, UDP uint64
	maxTimeWait        uint64 // 0: not known
}

func (u *inUse) add(protocol, name []byte, n uint64) {
	switch string(protocol) + " " + string(name) {
	case "TCP inuse", "TCP6 inuse":
		u.TCP += n
	case "TCP tw":
		u.TimeWait = n
	case "UDP inuse", "UDP6 inuse":
		u.UDP += n
	}
}

// file reads a file whole; nothing of one that there is not, as without IPv6.
func (r *reader) file(path string) ([]byte, error) {
	// Not by os.Open: that asks the poller for each, which does not take these.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	n := 0
	for n < len(r.buf) {
		got, err := unix.Read(fd, r.buf[n:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		case got == 0:
			return r.buf[:n], nil
		}
		n += got
	}
	return nil, fmt.Errorf("%s is longer than %d bytes", path, maxFile)
}
