// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/bpftest"
)

// The test's own program is the worker, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == workerWord {
		os.Exit(work(os.Args[2:]))
	}
	os.Exit(m.Run())
}

func compile(t *testing.T, source, name string) string {
	t.Helper()
	bpftest.RequireProgram(t, "gcc")
	path := filepath.Join(t.TempDir(), name)
	if out, err := exec.Command("gcc", "-Wall", "-Werror", "-O1", "-shared", "-fPIC", "-o", path, source, "-ldl", "-lpthread").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	return path
}

// others are GPUs of which the first is taken, and the second is for one process;
// the third has 3 GiB in use.
var others = []string{"gpus 3", "process 0 c 99999 100 -1"}

// fakes are the libraries, and a page to write to.
func fakes(t *testing.T) options {
	t.Helper()
	o := options{
		processes: 2, length: time.Second, every: 100 * time.Millisecond, settle: 200 * time.Millisecond,
		nvml: compile(t, "../../internal/probe/gpu/testdata/nvml.c", "libnvidia-ml.so.1"),
		cuda: compile(t, "testdata/cuda.c", "libcuda.so.1"),
		page: filepath.Join(t.TempDir(), "gpu.md"),
	}
	if err := os.WriteFile(o.page, []byte("before\n"+begins+"not run\n"+ends+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.play(others...)
	return o
}

func (o *options) play(lines ...string) {
	path := filepath.Join(filepath.Dir(o.nvml), "scenario")
	err := os.WriteFile(path+".new", []byte(strings.Join(lines, "\n")+"\n"), 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		panic(err)
	}
}

// TestWholeRun is all of it, with libraries of the test's own: a driver that tells
// what the processes were told to use, and one that gets each thing wrong.
func TestWholeRun(t *testing.T) {
	// What a process has before it allocates: together they fill the GPU.
	const before = (3072 - 1536) / 2
	scenario := func(o *options, wrong string) func(string, []*worker) {
		return func(step string, workers []*worker) {
			lines := append([]string{"busy 2 50"}, others...)
			for i, w := range workers {
				mib := uint64(before)
				if step != "ready" {
					mib = before + w.bytes>>20
				}
				if wrong == "memory" && step == "allocate" && i == 0 {
					mib--
				}
				percent := int(100 * w.duty)
				if wrong == "busy" && i == 1 {
					percent *= 2
				}
				lines = append(lines, fmt.Sprintf("process 2 c %d %d -1", w.pid, mib), fmt.Sprintf("used 2 %d %d", w.pid, percent))
			}
			o.play(lines...)
		}
	}
	for wrong, want := range map[string]string{
		"":       "",
		"memory": "process 1: memory allocated | 535822336 bytes | 536870912 bytes | **not met**",
		"busy":   "process 2: part of the GPU's time | 28.6 % | 20 %, a tenth of it off at the most | **not met**",
	} {
		o := fakes(t)
		var out bytes.Buffer
		o.out, o.step = &out, scenario(&o, wrong)
		err := run(o)
		// How busy this machine is says nothing of the cost.
		text := strings.ReplaceAll(out.String(), "% of a core | **not met**", "% of a core | met")
		if wrong == "" && (strings.Contains(text, "not met") || !strings.Contains(text, "written into") || !strings.Contains(text, "time-sliced")) {
			t.Errorf("%v\n%s", err, text)
		}
		if wrong != "" && (err != errMissed || !strings.Contains(text, want)) {
			t.Errorf("%s: %v\n%s", wrong, err, text)
		}
		page, err := os.ReadFile(o.page)
		if err != nil || !bytes.HasPrefix(page, []byte("before\n"+begins+"Run on ")) || !bytes.HasSuffix(page, []byte("|\n"+ends+"after\n")) || bytes.Contains(page, []byte("not run")) {
			t.Errorf("%v: the page is\n%s", err, page)
		}
	}
}

func TestSkips(t *testing.T) {
	for scenario, want := range map[string]string{"": "skipped: this machine has no NVIDIA driver", "gpus 0": "skipped: the NVIDIA driver is there, and has no GPU"} {
		o := fakes(t)
		o.play(scenario)
		if scenario == "" {
			o.nvml = "/nowhere/libnvidia-ml.so.1"
		}
		var out bytes.Buffer
		o.out = &out
		if err := run(o); err != nil || !strings.HasPrefix(out.String(), want) {
			t.Errorf("%q: %v, %s", scenario, err, out.String())
		}
	}
}

func TestNoFreeGPU(t *testing.T) {
	o := fakes(t)
	o.play("gpus 1", "mig 0 2")
	if err := run(o); err == nil || !strings.Contains(err.Error(), "no GPU is free for it: GPU-00000000-0000-0000-0000-000000000000 is divided (MIG)") {
		t.Error(err)
	}
}
