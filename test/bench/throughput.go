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

// untapped is the name of the rounds without a program.
const untapped = "untapped"

// onAndOff compares the rate of what moves without a program, with the tap, and
// with the empty program in its place, in rounds that begin with another each
// time. rate measures for a slice of time.
func (b *bench) onAndOff(rate func() float64) (r results, err error) {
	stop := b.load.tap.everySecond()
	defer func() { err = errors.Join(err, stop()) }()
	all := []*variant{{name: untapped}, b.load.base.empty, &b.load.tap.variant}
	for _, c := range b.load.changed {
		all = append(all, &c.variant)
	}
	r = results{}
	for i := range max(pairs, 2*b.rounds) {
		for j := range all {
			v := all[(i+j)%len(all)]
			if err := b.rateWith(v, rate, r); err != nil {
				return nil, err
			}
		}
	}
	return r, nil
}

func (b *bench) rateWith(v *variant, rate func() float64, into results) error {
	if v.egress != nil {
		for _, p := range []place{b.lab.nearIngress(), b.lab.nearEgress()} {
			l, err := v.attach(p)
			if err != nil {
				return err
			}
			defer l.Close()
		}
	}
	time.Sleep(b.slice / 10) // settle
	into.add(v, rate())
	return nil
}

// rates are shown in a unit that is so many times what was counted.
type rates struct {
	unit  string
	scale float64
}

func (b *bench) addRates(measure string, in rates, r results) {
	for _, name := range b.taps() {
		row := result{Measure: titled(measure, name), Unit: "×", Bar: atLeast(0.97)}
		row = row.of(r[name].over(r[untapped])).beside("empty", r["empty"].over(r[untapped]))
		row.Baselines = append(row.Baselines,
			baseline{"tapped", r[name].median() * in.scale, in.unit},
			baseline{untapped, r[untapped].median() * in.scale, in.unit})
		b.add(row)
	}
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
	b.addRates(measure, rates{"kpps", 1e-3}, r)
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
	b.addRates("TCP through veth, tapped ÷ untapped", rates{"Gbit/s", 8e-9}, r)
	return flood.end()
}
