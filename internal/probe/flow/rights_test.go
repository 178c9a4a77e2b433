// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
)

// The verifier would take 20 s, and then say something else.
func TestWithoutPerfmon(t *testing.T) {
	bpftest.RequireKernel(t)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with what it has lost
		var caps [2]unix.CapUserData
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		if err := unix.Capget(&header, &caps[0]); err != nil {
			done <- err
			return
		}
		for _, c := range [...]int{unix.CAP_PERFMON, unix.CAP_SYS_ADMIN} {
			caps[c/32].Effective &^= 1 << (c % 32)
		}
		if err := unix.Capset(&header, &caps[0]); err != nil {
			done <- err
			return
		}
		tap, err := Open(Config{StateDir: t.TempDir()})
		if err == nil {
			_ = tap.Close()
		}
		done <- err
	}()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "BPF, NET_ADMIN and PERFMON") {
		t.Errorf("open: %v", err)
	}
	if err := mayRead(); err != nil {
		t.Errorf("with all capabilities: %v", err)
	}
}
