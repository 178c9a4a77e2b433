// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// pairs is how many times tapped and untapped are compared at least.
const pairs = 9

// throughput: what moves through the veth with the sender's namespace tapped,
// ÷ the same without the tap. The tap's epochs run in both, once a second.
func (b *bench) throughput() error {
	for _, m := range []func() error{b.udpThroughput, b.udpBatchThroughput, b.tcpThroughput} {
		if err := m(); err != nil {
			return err
		}
	}
	return nil
}

// rates are what was counted in a second, round by round.
type rates struct{ untapped, empty, tap series }

// onAndOff compares the rate of what moves without the tap, with the tap, and
// with the empty program in its place, in rounds that begin with another each
// time. rate measures until it has waited for a slice of time.
func (b *bench) onAndOff(rate func() float64) (r rates, err error) {
	stop := b.load.tap.everySecond()
	defer func() { err = errors.Join(err, stop()) }()
	with := func(v *variant, into *series) error {
		if v != nil {
			for _, p := range []place{b.lab.nearIngress(), b.lab.nearEgress()} {
				l, err := v.attach(p)
				if err != nil {
					return err
				}
				defer l.Close()
			}
		}
		time.Sleep(b.slice / 10) // settle
		*into = append(*into, rate())
		return nil
	}
	for i := range max(pairs, 2*b.rounds) {
		for j := range 3 {
			switch (i + j) % 3 {
			case 0:
				err = with(nil, &r.untapped)
			case 1:
				err = with(b.load.base.empty, &r.empty)
			case 2:
				err = with(&b.load.tap.variant, &r.tap)
			}
			if err != nil {
				return r, err
			}
		}
	}
	return r, nil
}

func (b *bench) addRates(measure, unit string, scale float64, r rates) {
	row := result{Measure: measure, Unit: "×", Bar: atLeast(0.97)}.of(r.tap.over(r.untapped))
	row = row.beside("empty", r.empty.over(r.untapped))
	row.Baselines = append(row.Baselines,
		baseline{"tapped", r.tap.median() * scale, unit},
		baseline{"untapped", r.untapped.median() * scale, unit})
	b.add(row)
}

// udpThroughput: a program that sends one packet a system call to one that
// receives them.
func (b *bench) udpThroughput() error {
	return b.udpRate("UDP through veth, tapped ÷ untapped", 1)
}

// udpBatchThroughput: the same with the least that a sender can spend.
func (b *bench) udpBatchThroughput() error {
	return b.udpRate("  the same, 64 packets a system call", sendBatch)
}

func (b *bench) udpRate(measure string, batch int) error {
	sink, err := newSinks(b.lab.far, farAddr(), 1)
	if err != nil {
		return err
	}
	defer sink.close()
	// The receiver looks up now and then whether it should end.
	wait := unix.NsecToTimeval(int64(100 * time.Millisecond))
	if err := unix.SetsockoptTimeval(sink[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return err
	}
	src, err := newUDPSource(b.lab.near, farAddr(), sendBatch, sendBatch)
	if err != nil {
		return err
	}
	defer src.close()
	src.repeat(1)
	in := newUDPReader(sink[0])
	received := startWorker(1, in.receive)
	defer received.end()
	sender := startWorker(0, func() (int, error) { return src.send(batch) })
	defer sender.end()
	// Sent, not received: near is what is tapped, and a packet that finds the
	// receiver's buffer full has been through the veth too. The second is one
	// of the sender's own processor time, which is what limits it: others' work
	// on the machine does not count.
	r, err := b.onAndOff(func() float64 {
		from, start := sender.count.Load(), sender.cpuTime()
		time.Sleep(b.slice)
		return float64(sender.count.Load()-from) / (sender.cpuTime() - start).Seconds()
	})
	if err != nil {
		return err
	}
	b.addRates(measure, "kpps", 1e-3, r)
	return errors.Join(sender.end(), received.end())
}

func (b *bench) tcpThroughput() error {
	flood, err := newTCPFlood(b.lab)
	if err != nil {
		return err
	}
	defer flood.end()
	r, err := b.onAndOff(func() float64 {
		from, start := flood.received.count.Load(), time.Now()
		time.Sleep(b.slice)
		return float64(flood.received.count.Load()-from) / time.Since(start).Seconds()
	})
	if err != nil {
		return err
	}
	b.addRates("TCP through veth, tapped ÷ untapped", "Gbit/s", 8e-9, r)
	return flood.end()
}
