// SPDX-License-Identifier: Apache-2.0

// Package pcapng writes packets as Wireshark and tshark read them: one section
// with its interfaces, each packet with its interface, direction and time in
// nanoseconds, and what each interface missed at the end. It reads nothing,
// opens no file, and never leaves half a block that cannot be cut off: Good says
// where. The command line writes captures with it.
package pcapng

import (
	"cmp"
	"encoding/binary"
	"io"
	"slices"
)

// Block types and options, by the specification (draft-ietf-opsawg-pcapng).
const (
	blockSection    = 0x0A0D0D0A
	blockInterface  = 1
	blockStatistics = 5
	blockPacket     = 6

	byteOrder = 0x1A2B3C4D

	optEnd     = 0
	optComment = 1

	sectionOS          = 3
	sectionApplication = 4

	interfaceName        = 2
	interfaceDescription = 3
	interfaceResolution  = 9

	packetFlags = 2

	statisticsReceived = 4
	statisticsDropped  = 5
	statisticsGiven    = 8

	inbound, outbound = 1, 2
	nanoseconds       = 9 // 10^-9
)

// Section is what is told of the whole.
type Section struct{ OS, Application, Comment string }

// Interface is where packets were captured.
type Interface struct {
	Name, Description, Comment string
	// As pcap numbers them.
	LinkType uint16
	// Bytes kept of each packet.
	Snaplen uint32
}

// Packet is one packet.
type Packet struct {
	// As Interface numbered it.
	Interface uint32
	// Unix nanoseconds.
	Time   int64
	Egress bool
	// As it was on the interface.
	Length uint32
	Data   []byte
}

// Statistics of an interface. A number that is not known is nil.
type Statistics struct {
	Interface uint32
	// Unix nanoseconds.
	Time int64
	// By the interface, before and after the filter; lost of the latter.
	Received, Given, Dropped *uint64
}

// buffered is how much is held back at the most, about.
const buffered = 64 << 10

// Writer writes blocks, several at once. Its first error stays.
type Writer struct {
	out  io.Writer
	buf  []byte
	ends []blockEnd // of the blocks in buf
	good int64
	// Packets in the good part.
	packets uint64
	next    uint32
	err     error
}

// blockEnd is where a block ends in the buffer, and the packets in it up to there.
type blockEnd struct {
	at      int
	packets uint64
}

// NewWriter begins a section.
func NewWriter(out io.Writer, s Section) *Writer {
	w := &Writer{out: out, buf: make([]byte, 0, 2*buffered)}
	at := w.begin(blockSection)
	w.u32(byteOrder)
	w.u32(1)          // version 1.0
	w.u64(^uint64(0)) // of unknown length
	w.text(optComment, s.Comment)
	w.text(sectionOS, s.OS)
	w.text(sectionApplication, s.Application)
	w.end(at)
	return w
}

// Interface adds one, and gives its number.
func (w *Writer) Interface(i Interface) (uint32, error) {
	at := w.begin(blockInterface)
	w.u32(uint32(i.LinkType))
	w.u32(i.Snaplen)
	w.text(optComment, i.Comment)
	w.text(interfaceName, i.Name)
	w.text(interfaceDescription, i.Description)
	w.option(interfaceResolution, []byte{nanoseconds})
	w.end(at)
	w.next++
	return w.next - 1, w.err
}

// Packet adds one.
func (w *Writer) Packet(p *Packet) error {
	at := w.begin(blockPacket)
	w.u32(p.Interface)
	w.u32(uint32(uint64(p.Time) >> 32))
	w.u32(uint32(p.Time))
	w.u32(uint32(len(p.Data)))
	w.u32(max(p.Length, uint32(len(p.Data))))
	w.bytes(p.Data)
	direction := uint32(inbound)
	if p.Egress {
		direction = outbound
	}
	w.header(packetFlags, 4)
	w.u32(direction)
	w.end(at)
	return w.err
}

// Statistics adds what an interface has counted; they come last.
func (w *Writer) Statistics(s *Statistics) error {
	at := w.begin(blockStatistics)
	w.u32(s.Interface)
	w.u32(uint32(uint64(s.Time) >> 32))
	w.u32(uint32(s.Time))
	for _, c := range []struct {
		code  uint16
		count *uint64
	}{{statisticsReceived, s.Received}, {statisticsDropped, s.Dropped}, {statisticsGiven, s.Given}} {
		if c.count != nil {
			w.header(c.code, 8)
			w.u64(*c.count)
		}
	}
	w.end(at)
	return w.err
}

// Flush writes what is held back.
func (w *Writer) Flush() error {
	if w.err != nil {
		w.buf, w.ends = w.buf[:0], w.ends[:0]
		return w.err
	}
	n, err := w.out.Write(w.buf)
	if err == nil && n < len(w.buf) {
		err = io.ErrShortWrite
	}
	w.err = err
	// The last block that is whole.
	i, _ := slices.BinarySearchFunc(w.ends, n+1, func(e blockEnd, n int) int { return cmp.Compare(e.at, n) })
	if i > 0 {
		w.good += int64(w.ends[i-1].at)
		w.packets += w.ends[i-1].packets
	}
	w.buf, w.ends = w.buf[:0], w.ends[:0]
	return w.err
}

// Good is how many bytes of what was written are whole blocks. After an error
// what is behind them is to be cut off.
func (w *Writer) Good() int64 { return w.good }

// Packets is how many packets are in the good part.
func (w *Writer) Packets() uint64 { return w.packets }

// begin gives the place of the block's length.
func (w *Writer) begin(kind uint32) int {
	w.u32(kind)
	w.u32(0)
	return len(w.buf) - 4
}

func (w *Writer) end(at int) {
	w.header(optEnd, 0)
	length := uint32(len(w.buf) - at + 8)
	binary.LittleEndian.PutUint32(w.buf[at:], length)
	w.u32(length)
	e := blockEnd{at: len(w.buf)}
	if len(w.ends) > 0 {
		e.packets = w.ends[len(w.ends)-1].packets
	}
	if binary.LittleEndian.Uint32(w.buf[at-4:]) == blockPacket {
		e.packets++
	}
	w.ends = append(w.ends, e)
	if len(w.buf) >= buffered {
		_ = w.Flush()
	}
}

func (w *Writer) u32(v uint32) { w.buf = binary.LittleEndian.AppendUint32(w.buf, v) }
func (w *Writer) u64(v uint64) { w.buf = binary.LittleEndian.AppendUint64(w.buf, v) }

// bytes are padded to words.
func (w *Writer) bytes(b []byte) {
	w.buf = append(w.buf, b...)
	w.buf = append(w.buf, "\x00\x00\x00"[:-len(b)&3]...)
}

func (w *Writer) header(code uint16, length int) {
	w.buf = binary.LittleEndian.AppendUint16(w.buf, code)
	w.buf = binary.LittleEndian.AppendUint16(w.buf, uint16(length))
}

func (w *Writer) option(code uint16, value []byte) {
	w.header(code, len(value))
	w.bytes(value)
}

// maxText: an option's length has 16 bits.
const maxText = 1 << 12

func (w *Writer) text(code uint16, s string) {
	if s != "" {
		w.option(code, []byte(s[:min(len(s), maxText)]))
	}
}
