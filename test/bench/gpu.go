// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// gpuRows measure what looking at GPUs costs the agent, on a fake driver: what a
// real one takes for an answer comes to it.
func (b *bench) gpuRows() error {
	bin, err := buildBinaries()
	if err != nil {
		return err
	}
	defer bin.close()
	library := filepath.Join(bin.dir, "libnvidia-ml.so.1")
	out, err := exec.Command("gcc", "-O2", "-shared", "-fPIC", "-o", library, "internal/probe/gpu/testdata/nvml.c", "-ldl", "-lpthread").CombinedOutput()
	if err != nil {
		return fmt.Errorf("a fake driver: %w: %s", err, bytes.TrimSpace(out))
	}
	quiet, err := newLab()
	if err != nil {
		return err
	}
	defer quiet.close()
	clients, err := startClients(200)
	if err != nil {
		return err
	}
	defer clients.end()
	for _, s := range []struct{ name, scenario string }{
		{"8 GPUs, 8 processes", clients.scenario(8, 0, 8)},
		{"8 GPUs, 56 MIG instances, 200 processes", clients.scenario(8, 7, 200)},
	} {
		if err := os.WriteFile(filepath.Join(bin.dir, "scenario"), []byte(s.scenario), 0o600); err != nil {
			return err
		}
		if err := b.gpuCost(bin, quiet, s.name, library); err != nil {
			return err
		}
	}
	return nil
}

// gpuCost compares agents that look at GPUs with such that do not.
func (b *bench) gpuCost(bin *binaries, l *lab, name, library string) error {
	var with, without, memory series
	for range min(b.rounds, 3) {
		var resident [2]float64
		for i, flag := range []string{"--gpu=false", "--gpu"} {
			share, now, err := b.gpuAgent(bin, l, flag, "--nvml="+library)
			if err != nil {
				return err
			}
			resident[i] = now
			if i == 0 {
				without = append(without, share)
			} else {
				with = append(with, share)
			}
		}
		memory = append(memory, resident[1]-resident[0])
	}
	row := result{Measure: "agent CPU, " + name + ", nothing moves", Unit: "% of a core", Value: with.median(), Bar: atMost(1)}
	row.Baselines = []baseline{{"without GPUs", without.median(), "% of a core"}}
	b.add(row)
	b.add(result{Measure: "  resident memory that comes to it", Unit: "MiB", Value: memory.median(), Bar: atMost(8)})
	return nil
}

func (b *bench) gpuAgent(bin *binaries, l *lab, args ...string) (share, resident float64, err error) {
	a := bin.command(l.near, args...)
	if err := a.start(l.near.do); err != nil {
		return 0, 0, err
	}
	defer a.close()
	if err := a.ready(); err != nil {
		return 0, 0, err
	}
	time.Sleep(3 * time.Second)
	if share, err = a.cpuShare(b.watch()); err != nil {
		return 0, 0, err
	}
	resident, _, err = a.resident()
	return share, resident, err
}

// clients are processes that a fake driver tells of.
type clients []*exec.Cmd

func startClients(n int) (clients, error) {
	var c clients
	for range n {
		one := exec.Command("sleep", "600")
		if err := one.Start(); err != nil {
			c.end()
			return nil, err
		}
		c = append(c, one)
	}
	return c, nil
}

func (c clients) end() {
	for _, one := range c {
		_ = one.Process.Kill()
		_ = one.Wait()
	}
}

// scenario has the processes spread over all devices.
func (c clients) scenario(gpus, instances, processes int) string {
	var s strings.Builder
	fmt.Fprintf(&s, "gpus %d\nlinks 18\n", gpus)
	for g := range gpus {
		fmt.Fprintf(&s, "mig %d %d\nmemory %d 60000\n", g, instances, g)
	}
	for i := range processes {
		instance := -1
		if instances > 0 {
			instance = 1 + i/gpus%instances
		}
		pid := c[i].Process.Pid
		fmt.Fprintf(&s, "process %d c %d 100 %d\nused %d %d 10\n", i%gpus, pid, instance, i%gpus, pid)
	}
	return s.String()
}
