// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"
)

// What is captured: packets a second, and bytes of each with its headers.
const (
	captureRate  = 100_000
	captureBytes = 128
)

// capture: packets of a known rate through the whole line into a file, what was
// lost on the way, and what the agent uses meanwhile.
func (b *bench) capture() error {
	bin, err := buildBinaries()
	if err != nil {
		return err
	}
	defer bin.close()
	a := bin.command(b.lab.near, "--allow-capture", "--kubernetes", "off")
	if err := a.start(b.lab.near.do); err != nil {
		return err
	}
	defer a.close()
	if err := a.ready(); err != nil {
		return err
	}
	src, err := newUDPSource(b.lab.near, behindFar(), hotFlows, hotFlows)
	if err != nil {
		return err
	}
	defer src.close()
	body := make([]byte, captureBytes-42) // after Ethernet, IPv4 and UDP
	src.iov.Base = &body[0]
	src.iov.SetLen(len(body))
	var out bytes.Buffer
	cmd := exec.Command(filepath.Join(bin.dir, "orb8"), "--agent", "unix://"+bin.socket(), "capture", "--protocol", "UDP",
		"--direction", "egress", "--duration", (b.watch() + 4*time.Second).String(), "--packets", "100000000", "--size", "60GB", "-w", filepath.Join(bin.dir, "packets"))
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		return err
	}
	time.Sleep(2 * time.Second) // until it is attached
	w := startWorker(0, paced(src, captureRate))
	share, err := a.cpuShare(b.watch())
	if err = errors.Join(err, w.end(), cmd.Wait()); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out.Bytes()))
	}
	var captured, dropped float64
	var size string
	if _, err := fmt.Sscanf(out.String(), "orb8: %f packets, %s %f dropped", &captured, &size, &dropped); err != nil {
		return fmt.Errorf("capture said %q: %w", out.String(), err)
	}
	sent := float64(w.count.Load())
	row := result{Measure: fmt.Sprintf("capture of %d packets/s of %d bytes: lost", captureRate, captureBytes), Unit: "packets", Value: sent - captured, Bar: atMost(0)}
	row.Baselines = []baseline{{"captured", captured, "packets"}, {"told as dropped", dropped, "packets"}}
	b.add(row)
	b.add(result{Measure: "  agent CPU", Unit: "% of a core", Value: share})
	return nil
}
