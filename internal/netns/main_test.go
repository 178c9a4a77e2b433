// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// What a child of the tests is for: "mounts" runs the tests themselves.
const childEnv = "ORB8_NETNS_TEST_CHILD"

// The process's first thread never ends before the process: one that were left
// in a namespace would hold it. So it is the main goroutine's, which waits.
func init() { runtime.LockOSThread() }

// The tests mount namespaces on files. That is done in a mount namespace of
// their own, which ends with them.
func TestMain(m *testing.M) {
	switch role := os.Getenv(childEnv); {
	case role != "" && role != "mounts":
		os.Exit(child(role))
	case role == "" && os.Geteuid() == 0 && !slices.Contains(os.Args, "-test.fuzzworker"):
		os.Exit(inOwnMounts())
	}
	goleak.VerifyTestMain(m)
}

func inOwnMounts() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), childEnv+"=mounts")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// Makes all mounts private, too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(1, exit.ExitCode())
	}
	if err != nil {
		fmt.Println("tests in a mount namespace of their own:", err)
		return 1
	}
	return 0
}
