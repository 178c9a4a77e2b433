// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

// fakeNVML is testdata/nvml.c as a library, compiled once.
var fakeNVML = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "orb8-nvml")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "fake.so")
	if out, err := exec.Command("gcc", "-Wall", "-Werror", "-O1", "-shared", "-fPIC", "-o", path, "testdata/nvml.c", "-ldl", "-lpthread").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("gcc: %w: %s", err, out)
	}
	return os.ReadFile(path)
})

// fake is a libnvidia-ml.so.1 of a test's own, and the scenario beside it.
type fake struct {
	tb   testing.TB
	path string
}

// newFake lacks the functions without: their names are struck out of the
// library's symbols.
func newFake(tb testing.TB, scenario string, without ...string) *fake {
	tb.Helper()
	bpftest.RequireProgram(tb, "gcc")
	lib, err := fakeNVML()
	if err != nil {
		tb.Fatal(err)
	}
	for _, name := range without {
		struck := "\x00x" + name[1:] + "\x00"
		if !bytes.Contains(lib, []byte("\x00"+name+"\x00")) {
			tb.Fatalf("the fake has no %s", name)
		}
		lib = bytes.ReplaceAll(lib, []byte("\x00"+name+"\x00"), []byte(struck))
	}
	f := &fake{tb, filepath.Join(tb.TempDir(), "libnvidia-ml.so.1")}
	f.play(scenario)
	if err := os.WriteFile(f.path, lib, 0o600); err != nil {
		tb.Fatal(err)
	}
	return f
}

// play changes the scenario, at once and as a whole.
func (f *fake) play(lines ...string) {
	f.tb.Helper()
	path := filepath.Join(filepath.Dir(f.path), "scenario")
	if err := os.WriteFile(path+".new", []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		f.tb.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		f.tb.Fatal(err)
	}
}

// open is the driver and its devices; both are closed with the test.
func (f *fake) open() (*nvml, []device) {
	f.tb.Helper()
	sysfs := f.tb.TempDir()
	for gpu := range 8 {
		dir := filepath.Join(sysfs, fmt.Sprintf("bus/pci/devices/0000:%02x:00.0", 0x1b+gpu))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			f.tb.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "numa_node"), fmt.Appendln(nil, gpu/4), 0o600); err != nil {
			f.tb.Fatal(err)
		}
	}
	d, err := openNVML([]string{f.path}, sysfs)
	if err != nil {
		f.tb.Fatal(err)
	}
	n := d.(*nvml)
	n.lib.gap = 0
	devices, err := n.find(nil)
	if err != nil {
		f.tb.Fatal(err)
	}
	f.tb.Cleanup(func() {
		for _, d := range devices {
			d.free()
		}
		if err := n.close(); err != nil {
			f.tb.Error(err)
		}
	})
	return n, devices
}

// sampled is the second sample of a device: the first has no activity.
func sampled(t *testing.T, d device) event.GPUSample {
	t.Helper()
	var s event.GPUSample
	for range 2 {
		s = event.GPUSample{}
		if err := d.sample(&s); err != nil {
			t.Fatal(err)
		}
	}
	return s
}
