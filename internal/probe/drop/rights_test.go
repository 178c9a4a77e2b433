// SPDX-License-Identifier: Apache-2.0

package drop

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
)

// with runs fn on a thread that has these capabilities and no others.
func with(t *testing.T, fn func() error, has ...int) error {
	bpftest.RequireKernel(t, withReasons)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with what it has lost
		var caps [2]unix.CapUserData
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		for _, c := range has {
			caps[c/32].Effective |= 1 << (c % 32)
			caps[c/32].Permitted |= 1 << (c % 32)
		}
		if err := unix.Capset(&header, &caps[0]); err != nil {
			done <- fmt.Errorf("drop capabilities: %w", err)
			return
		}
		done <- fn()
	}()
	return <-done
}

// TestRights: what deploy/ gives is enough, names of places included, and without
// it there is an error that says so.
func TestRights(t *testing.T) {
	err := with(t, func() error {
		p, err := Open(Config{})
		if err != nil {
			return err
		}
		// Of anything in the kernel: a program's own clock is at no symbol, and
		// address 0 is told as it is.
		if name := p.places.name(0); p.places.nameless || name == "" {
			err = fmt.Errorf("address 0 is called %q", name)
		}
		return errors.Join(err, p.Close())
	}, unix.CAP_BPF, unix.CAP_PERFMON)
	if err != nil {
		t.Errorf("with BPF and PERFMON: %v", err)
	}
	err = with(t, func() error {
		p, err := Open(Config{})
		if err == nil {
			err = p.Close()
		}
		return err
	}, unix.CAP_NET_ADMIN)
	if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "PERFMON") {
		t.Errorf("without: %v", err)
	}
}

func TestCloseTwice(t *testing.T) {
	bpftest.RequireKernel(t, withReasons)
	p, err := Open(Config{Connections: 10})
	if err != nil {
		t.Fatal(err)
	}
	if p.KernelMemory() == 0 {
		t.Error("no memory")
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := p.Take(); !errors.Is(err, errClosed) {
		t.Error(err)
	}
	if rest, unseen := p.Lost(); rest.Packets != 0 || unseen != 0 || !p.Quiet() || p.KernelMemory() != 0 {
		t.Error("a closed probe tells")
	}
}
