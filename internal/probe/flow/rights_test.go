// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
)

// without runs fn on a thread that lacks capabilities.
func without(t *testing.T, fn func() error, lacks ...int) error {
	bpftest.RequireKernel(t)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with what it has lost
		var caps [2]unix.CapUserData
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		err := unix.Capget(&header, &caps[0])
		for _, c := range lacks {
			caps[c/32].Effective &^= 1 << (c % 32)
		}
		if err == nil {
			err = unix.Capset(&header, &caps[0])
		}
		if err != nil {
			done <- fmt.Errorf("drop capabilities: %w", err)
			return
		}
		done <- fn()
	}()
	return <-done
}

// The verifier would take 20 s, and then say something else.
func TestWithoutPerfmon(t *testing.T) {
	err := without(t, func() error {
		tap, err := Open(Config{StateDir: t.TempDir()})
		if err == nil {
			err = tap.Close()
		}
		return err
	}, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN)
	if err == nil || !strings.Contains(err.Error(), "PERFMON is missing") {
		t.Errorf("open: %v", err)
	}
	if err := mayRead(); err != nil {
		t.Errorf("with all capabilities: %v", err)
	}
}

// Who may not hear of all namespaces hears of its own.
func TestWithoutNetBroadcast(t *testing.T) {
	for _, lacks := range [][]int{nil, {unix.CAP_NET_BROADCAST}} {
		err := without(t, func() error {
			w, deaf, err := openWatch(true)
			if err != nil {
				return err
			}
			if deaf != (lacks != nil) {
				err = fmt.Errorf("deaf: %v", deaf)
			}
			return errors.Join(err, w.file.Close())
		}, lacks...)
		if err != nil {
			t.Errorf("without %v: %v", lacks, err)
		}
	}
}

func TestWithoutSysAdmin(t *testing.T) {
	err := explain(fmt.Errorf("enter: %w", os.NewSyscallError("setns", unix.EPERM)))
	if !strings.Contains(err.Error(), "SYS_ADMIN") || !errors.Is(err, unix.EPERM) {
		t.Error(err)
	}
}
