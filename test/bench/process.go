// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
)

// binaries are the agent and the command, built from this checkout, and a
// directory for what they leave.
type binaries struct{ dir string }

func buildBinaries() (*binaries, error) {
	dir, err := os.MkdirTemp("", "orb8-bench-")
	if err != nil {
		return nil, err
	}
	b := &binaries{dir}
	out, err := exec.Command("go", "build", "-o", dir, "github.com/orb8/orb8/cmd/orb8", "github.com/orb8/orb8/cmd/orb8-agent").CombinedOutput()
	if err != nil {
		b.close()
		return nil, fmt.Errorf("build: %w: %s", err, bytes.TrimSpace(out))
	}
	return b, nil
}

func (b *binaries) close() { _ = os.RemoveAll(b.dir) }

func (b *binaries) socket() string { return filepath.Join(b.dir, "agent.sock") }

// agent is an agent that runs in a namespace of the lab.
type agent struct {
	bin  *binaries
	ns   namespace
	cmd  *exec.Cmd
	log  bytes.Buffer
	dead chan error
	// How long it may take to begin and to end.
	patience time.Duration
}

// command prepares an agent that taps its own namespace, if args do not say
// something else.
func (b *binaries) command(ns namespace, args ...string) *agent {
	a := &agent{bin: b, ns: ns, dead: make(chan error, 1), patience: 15 * time.Second}
	args = append([]string{"--socket", b.socket(), "--state-dir", b.dir, "--netns", "own"}, args...)
	a.cmd = exec.Command(filepath.Join(b.dir, "orb8-agent"), args...)
	a.cmd.Stderr = &a.log
	return a
}

// start starts it on a thread that do leads to: a child inherits its
// namespaces.
func (a *agent) start(do func(func() error) error) error {
	if err := do(a.cmd.Start); err != nil {
		return fmt.Errorf("start agent: %w", err)
	}
	go func() { a.dead <- a.cmd.Wait() }()
	return nil
}

func (b *binaries) startAgent(ns namespace) (*agent, error) {
	a := b.command(ns)
	return a, a.start(ns.do)
}

// ask runs orb8 against the agent.
func (a *agent) ask(args ...string) ([]byte, error) {
	return a.bin.orb8(a.ns, append([]string{"--agent", "unix://" + a.bin.socket()}, args...)...)
}

func (b *binaries) orb8(ns namespace, args ...string) (out []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var errs bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(b.dir, "orb8"), args...)
	cmd.Stderr = &errs
	cmd.Env = append(os.Environ(), "ORB8_NETNS=own") // when it looks by itself
	err = ns.do(func() (err error) {
		out, err = cmd.Output()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("orb8 %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out, nil
}

// ready waits until the agent answers.
func (a *agent) ready() error {
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		_, err := a.ask("status")
		if err == nil {
			return nil
		}
		select {
		case <-a.dead:
			a.dead <- nil
			return fmt.Errorf("agent ended: %s", bytes.TrimSpace(a.log.Bytes()))
		default:
		}
		if time.Since(start) > a.patience {
			return fmt.Errorf("agent does not answer: %w", err)
		}
	}
}

func (a *agent) close() {
	_ = a.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-a.dead:
	case <-time.After(a.patience):
		_ = a.cmd.Process.Kill()
		<-a.dead
	}
}

// cpuTime is what the process has used, user and kernel, in clock ticks of
// 10 ms.
func (a *agent) cpuTime() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", a.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The name, in brackets, may hold anything.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	const utime, stime = 11, 12
	if len(f) <= stime {
		return 0, errors.New("/proc/PID/stat is too short")
	}
	user, err1 := strconv.Atoi(f[utime])
	system, err2 := strconv.Atoi(f[stime])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2)
}

// resident is the process's memory now and at its highest, in MiB.
func (a *agent) resident() (now, peak float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	kib := field(string(b))
	return kib("VmRSS:") / 1024, kib("VmHWM:") / 1024, nil
}

// field reads numbers by name from lines of "name number".
func field(text string) func(name string) float64 {
	return func(name string) float64 {
		for line := range strings.Lines(text) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == name {
				n, _ := strconv.ParseFloat(f[1], 64)
				return n
			}
		}
		return 0
	}
}

// maps are those that the process holds, and what the kernel charges for each in
// bytes.
func (a *agent) maps() (map[ebpf.MapID]float64, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", a.cmd.Process.Pid))
	if err != nil {
		return nil, err
	}
	maps := map[ebpf.MapID]float64{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // closed meanwhile
		}
		if f := field(string(b)); strings.Contains(string(b), "map_id:") {
			maps[ebpf.MapID(f("map_id:"))] = f("memlock:")
		}
	}
	return maps, nil
}

// mapMemory is what the kernel charges for the maps that the process holds, in
// MiB.
func (a *agent) mapMemory() (float64, error) {
	maps, err := a.maps()
	sum := 0.0
	for _, bytes := range maps {
		sum += bytes
	}
	return sum / (1 << 20), err
}
