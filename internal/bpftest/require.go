// SPDX-License-Identifier: Apache-2.0

// Package bpftest is help for tests that need the kernel: private network
// namespaces, veth pairs, packets built byte by byte, traffic. It never touches
// the interfaces, mounts or settings of the namespace that a test starts in,
// and what it makes is gone when the test ends, however it ends. Only tests
// read it.
package bpftest

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// Feature is something that only kernels from some version on have.
type Feature struct {
	Name         string
	Major, Minor int
}

// The features that tests ask for.
var (
	BPF          = Feature{"what the programs need at least", 5, 10}
	VethOffload  = Feature{"veth with GRO", 5, 13}
	TCX          = Feature{"TCX", 6, 6}
	TunnelLength = Feature{"lengths of tunnelled super-packets", 6, 17}
)

// RequireKernel skips the test where it cannot run: not as root, or on a kernel
// that is older than a feature. With ORB8_REQUIRE_KERNEL=1 that is a failure,
// so that a green run means that everything ran.
func RequireKernel(t testing.TB, features ...Feature) {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "needs root")
	}
	major, minor := kernelVersion(t)
	for _, f := range features {
		if major < f.Major || major == f.Major && minor < f.Minor {
			skip(t, "kernel %d.%d is older than %s (%d.%d)", major, minor, f.Name, f.Major, f.Minor)
		}
	}
}

// RequireProgram skips the test where a program is missing that it runs, and fails
// it as RequireKernel does.
func RequireProgram(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		skip(t, "needs %s: apt-get install %s", name, name)
	}
}

// Older tells that the kernel is older than a version.
func Older(t testing.TB, major, minor int) bool {
	t.Helper()
	ma, mi := kernelVersion(t)
	return ma < major || ma == major && mi < minor
}

func skip(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("ORB8_REQUIRE_KERNEL") == "1" {
		t.Fatalf("ORB8_REQUIRE_KERNEL: "+format, args...)
	}
	t.Skipf(format, args...)
}

func kernelVersion(t testing.TB) (major, minor int) {
	t.Helper()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatalf("kernel version: %v", err)
	}
	return parseVersion(unix.ByteSliceToString(uts.Release[:]))
}

// parseVersion reads "6.18.44-cloud"; what it cannot read is version 0.
func parseVersion(release string) (major, minor int) {
	n := [2]int{}
	at := 0
	for _, r := range release {
		switch {
		case r >= '0' && r <= '9':
			n[at] = n[at]*10 + int(r-'0')
		case r == '.' && at == 0:
			at = 1
		default:
			return n[0], n[1]
		}
	}
	return n[0], n[1]
}
