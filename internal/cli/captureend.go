// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/orb8/orb8/internal/client"
	"github.com/orb8/orb8/internal/render"
)

// end makes the file whole and says how it went. A reader that left is a normal
// end.
func (p *packetFile) end(failed error, c client.Observer) error {
	if p.w == nil && failed == nil && p.by == endedNoMatch {
		failed = &client.Error{Text: "nothing that " + c.Who() + " can capture at is what was asked for", Try: "orb8 pods"}
	}
	if p.w != nil {
		failed = errors.Join(failed, p.w.Flush())
	}
	if errors.Is(failed, syscall.EPIPE) {
		failed, p.by = nil, readerLeft
	}
	failed = p.close(failed)
	if p.w == nil && failed != nil {
		return failed
	}
	p.say(p.outcome(failed))
	var refused *client.Error
	if errors.Is(failed, syscall.ENOSPC) || errors.Is(failed, syscall.EDQUOT) {
		return &client.Error{Text: "no room for more in " + p.asked.file, Try: "df -h " + filepath.Dir(p.asked.file) + ", or less of it with --snaplen"}
	}
	if failed != nil && !errors.As(failed, &refused) && !errors.Is(failed, client.ErrInterrupted) {
		return &client.Error{Text: "cannot write " + p.asked.file + ": " + reasonOf(failed), Try: "another file with -w"}
	}
	return failed
}

// close cuts off half a block, and leaves no empty file behind.
func (p *packetFile) close(failed error) error {
	if p.file == nil {
		return failed
	}
	st, err := p.file.Stat()
	switch plain := err == nil && st.Mode().IsRegular(); {
	case plain && p.w == nil && p.made:
		failed = errors.Join(failed, os.Remove(p.asked.file))
	case plain && p.w != nil && failed != nil:
		failed = errors.Join(failed, p.file.Truncate(p.w.Good()))
	}
	return errors.Join(failed, p.file.Close())
}

// outcome is the last line about a capture.
func (p *packetFile) outcome(failed error) string {
	if p.w != nil {
		p.packets = p.w.Packets() // what did not get in was told to nobody
	}
	what := p.amount()
	if p.asked.file != "-" {
		what += fmt.Sprintf(" in %s", p.asked.file)
	}
	if n := len(p.received); n != 1 {
		what += fmt.Sprintf(", of %d interfaces", n)
	}
	why := map[string]string{
		interrupted:  "interrupted",
		readerLeft:   "the reader of the pipe has left",
		endedPackets: "enough packets",
		endedBytes:   "enough bytes",
		"duration":   "the time is up",
		"gone":       "what it was captured at is gone",
	}[p.by]
	switch {
	case failed != nil:
		why = "ended by an error, and whole up to there"
	case p.by == "":
		why = "the agents have gone, and it is whole up to there"
	case why == "":
		why = render.Escape(p.by)
	}
	return fmt.Sprintf("%s, after %s: %s", what, time.Since(p.began).Round(10*time.Millisecond), why)
}
