// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/client"
	"github.com/orb8/orb8/internal/pcapng"
	"github.com/orb8/orb8/internal/render"
)

// packetFile is a capture on its way into a file or a pipe. Whatever happens,
// what is written ends with a whole block.
type packetFile struct {
	app   *app
	asked *captureFlags
	out   io.Writer
	file  *os.File // nil for standard output
	// It was not there before.
	made bool
	w    *pcapng.Writer // nil before the first interface

	numbers  map[capturedAt]uint32
	received []uint64 // by interface
	packets  uint64
	bytes    uint64
	dropped  uint64
	began    time.Time
	by       string
	shown    time.Time // when progress was
	terminal bool
	clear    bool // there is progress to take away
	// Closed when the agents must have ended by themselves, set once.
	overdue chan struct{}
	timed   bool
}

// capturedAt is an interface as agents call it.
type capturedAt struct {
	node   string
	number uint32
}

// The ways for a capture to end that an agent does not know of.
const (
	interrupted  = "interrupted"
	readerLeft   = "reader"
	endedPackets = "packets"
	endedBytes   = "bytes"
	endedNoMatch = "no match"
)

// runCapture asks, writes what comes, and tells how it ended.
func (a *app) runCapture(ctx context.Context, c client.Observer, f *captureFlags) error {
	p := &packetFile{app: a, asked: f, out: a.cfg.Stdout, numbers: map[capturedAt]uint32{}, began: time.Now(), by: interrupted, overdue: make(chan struct{})}
	if err, ok := a.cfg.Stderr.(*os.File); ok {
		p.terminal = term.IsTerminal(int(err.Fd()))
	}
	if err := p.open(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- p.run(ctx, c) }()
	select {
	case err := <-done:
		return err
	case <-p.overdue:
	case <-ctx.Done():
	}
	// Who writes into a pipe that nobody reads waits for ever.
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		return &client.Error{Text: "the reader of " + f.file + " has stopped to read: what it got ends in the midst of a packet", Try: "orb8 capture -w FILE"}
	}
}

// patience is how long a reader may take for what is left.
const patience = 3 * time.Second

func (p *packetFile) run(ctx context.Context, c client.Observer) error {
	var failed error
	for m, err := range c.Capture(ctx, p.asked.request()) {
		if err == nil {
			err = p.take(m)
		}
		if failed = err; err != nil || p.enough() {
			break
		}
	}
	return p.end(failed, c)
}

func (p *packetFile) open() error {
	if p.asked.file == "-" {
		return nil
	}
	_, err := os.Lstat(p.asked.file)
	p.made = errors.Is(err, os.ErrNotExist)
	// What people say to each other is not for everybody to read.
	p.file, err = os.OpenFile(p.asked.file, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return &client.Error{Text: "cannot write " + p.asked.file + ": " + reasonOf(err), Try: "another file with -w"}
	}
	p.out = p.file
	return nil
}

func reasonOf(err error) string {
	var path *os.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return err.Error()
}

// enough: with several nodes each has its own bounds, and all together the one
// that was asked for.
func (p *packetFile) enough() bool {
	switch {
	case p.asked.packets > 0 && p.packets >= p.asked.packets:
		p.by = endedPackets
	case p.asked.size > 0 && p.bytes >= uint64(p.asked.size):
		p.by = endedBytes
	default:
		return false
	}
	nodes := map[string]bool{}
	for at := range p.numbers {
		nodes[at.node] = true
	}
	return len(nodes) > 1 // of one, the summary is about to come
}

func (p *packetFile) take(m *orb8v1.CaptureResponse) error {
	switch {
	case m.GetPackets() != nil:
		if err := p.write(m.GetPackets()); err != nil {
			return err
		}
		p.progress()
	case m.GetInterface() != nil:
		return p.add(m.GetInterface())
	case m.GetBounds() != nil:
		p.hear(m.GetBounds())
	case m.GetNote() != nil:
		p.say(m.GetNote().GetNode() + ": " + m.GetNote().GetText())
	case m.GetNode() != nil:
		if missing := render.NodeState(m.GetNode()); missing != "" {
			p.say(missing)
		}
	case m.GetLoss() != nil:
		p.dropped += m.GetLoss().GetCount()
	case m.GetSummary() != nil:
		p.by = m.GetSummary().GetEndedBy()
		return p.statistics(m.GetSummary().GetAmounts())
	}
	return nil
}

// hear says where an agent gives less than what was asked for.
func (p *packetFile) hear(b *orb8v1.CaptureBounds) {
	var less []string
	if most := time.Duration(b.GetDurationNs()); p.asked.duration > most {
		less = append(less, "for "+most.String())
	}
	if p.asked.packets > b.GetPackets() {
		less = append(less, fmt.Sprintf("%d packets", b.GetPackets()))
	}
	if uint64(p.asked.size) > b.GetBytes() {
		less = append(less, render.Bytes(b.GetBytes()))
	}
	if p.asked.snaplen > b.GetSnaplen() {
		less = append(less, fmt.Sprintf("%d bytes of each packet", b.GetSnaplen()))
	}
	if !p.timed {
		p.timed = true
		time.AfterFunc(time.Duration(b.GetDurationNs())+2*patience, func() { close(p.overdue) })
	}
	if len(less) > 0 {
		p.say("node " + b.GetNode() + " captures " + strings.Join(less, ", ") + " at the most")
	}
}

// begin writes over what was in the file, now that there is something to write.
func (p *packetFile) begin() error {
	if p.file != nil {
		// What is no plain file has no length.
		if err := p.file.Truncate(0); err != nil && !errors.Is(err, syscall.EINVAL) {
			return err
		}
	}
	p.w = pcapng.NewWriter(p.out, pcapng.Section{OS: "Linux", Application: "orb8 " + p.app.cfg.Version})
	return nil
}

func (p *packetFile) add(i *orb8v1.CaptureInterface) error {
	if p.w == nil {
		if err := p.begin(); err != nil {
			return err
		}
	}
	number, err := p.w.Interface(describe(i))
	p.numbers[capturedAt{i.GetNode(), i.GetNumber()}] = number
	p.received = append(p.received, 0)
	return errors.Join(err, p.w.Flush())
}

// describe names an interface by its pod.
func describe(i *orb8v1.CaptureInterface) pcapng.Interface {
	name, tap, owner := i.GetTap().GetInterface(), i.GetTap(), i.GetOwner()
	where := cmp.Or(tap.GetNamespace(), "the node's own network")
	switch {
	case owner.GetPod() != "":
		where = "pod " + owner.GetNamespace() + "/" + owner.GetPod()
		name = owner.GetPod() + "/" + name
	case tap.GetNamespace() != "":
		name = tap.GetNamespace() + "/" + name
	}
	return pcapng.Interface{
		Name:     name,
		Comment:  fmt.Sprintf("%s, interface %s, node %s, network namespace %d", where, tap.GetInterface(), i.GetNode(), tap.GetNetns()),
		LinkType: uint16(i.GetLinkType()), Snaplen: i.GetSnaplen(),
	}
}

func (p *packetFile) write(list *orb8v1.CapturePackets) error {
	for _, m := range list.GetPackets() {
		number, ok := p.numbers[capturedAt{list.GetNode(), m.GetInterface()}]
		if !ok {
			return fmt.Errorf("node %s sent a packet of an interface that it did not name", list.GetNode())
		}
		if p.asked.packets > 0 && p.packets >= p.asked.packets {
			break
		}
		err := p.w.Packet(&pcapng.Packet{Interface: number, Time: m.GetTimeNs(), Egress: m.GetEgress(), Length: m.GetLength(), Data: m.GetData()})
		if err != nil {
			return err
		}
		p.received[number]++
		p.packets++
		p.bytes += uint64(len(m.GetData()))
	}
	return p.w.Flush()
}

// statistics are of agents that told to the end.
func (p *packetFile) statistics(amounts []*orb8v1.CaptureAmount) error {
	if p.w == nil {
		return nil
	}
	now := time.Now().UnixNano()
	for _, a := range amounts {
		number, ok := p.numbers[capturedAt{a.GetNode(), a.GetInterface()}]
		if !ok {
			continue
		}
		dropped := a.GetDropped()
		err := p.w.Statistics(&pcapng.Statistics{Interface: number, Time: now, Given: &p.received[number], Dropped: &dropped})
		if err != nil {
			return err
		}
	}
	return nil
}

// progress is one line, at most twice a second, where somebody looks.
func (p *packetFile) progress() {
	if !p.terminal || time.Since(p.shown) < 500*time.Millisecond {
		return
	}
	p.shown, p.clear = time.Now(), true
	fmt.Fprintf(p.app.cfg.Stderr, "\r%s%s", p.amount(), clearLineEnd)
}

func (p *packetFile) amount() string {
	return fmt.Sprintf("%d packets, %s, %d dropped", p.packets, render.Bytes(p.bytes), p.dropped)
}

// say takes progress away first.
func (p *packetFile) say(line string) {
	if p.clear {
		fmt.Fprint(p.app.cfg.Stderr, "\r"+clearLineEnd)
		p.clear = false
	}
	p.app.say(line)
}
