// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/orb8/orb8/internal/bpftest"
)

// Set in a child: how it attaches, and its state directory.
const childEnv = "ORB8_FLOW_TEST_CHILD"

// child is a process with a tap on its own namespace, until it is killed.
func child() int {
	how, dir, _ := strings.Cut(os.Getenv(childEnv), ":")
	if how, bare := strings.CutPrefix(how, "bare-"); bare {
		return bareChild(how, dir)
	}
	if how == "sleep" {
		_, _ = io.Copy(io.Discard, os.Stdin)
		return 0
	}
	tap, err := Open(Config{Attach: Attach(how), StateDir: dir})
	if err == nil {
		err = tap.Sync()
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for _, i := range tap.Interfaces() {
		fmt.Println(i.Name, i.How, i.Problem)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // nobody writes; it ends with the test
	runtime.KeepAlive(tap)               // a collected file would end the lock on it
	return 0
}

// startChild starts such a process in a namespace and waits until it is
// attached. kill ends it as SIGKILL does.
func startChild(t *testing.T, ns *bpftest.Netns, how Attach, dir string) (kill func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s:%s", childEnv, how, dir))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	// A process starts in the namespace of the thread that starts it.
	ns.Do(func() { err = cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	ended := false
	kill = func() {
		if !ended {
			ended = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			_ = stdin.Close()
		}
	}
	t.Cleanup(kill)
	var told []string
	for s := bufio.NewScanner(stdout); s.Scan(); {
		if s.Text() == "ready" {
			return kill
		}
		told = append(told, s.Text())
	}
	t.Fatalf("the child is not attached: %q", told)
	return nil
}
