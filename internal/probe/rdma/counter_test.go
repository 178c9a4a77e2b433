// SPDX-License-Identifier: Apache-2.0

package rdma

import (
	"testing"
	"time"

	"github.com/orb8/orb8/internal/event"
)

func TestMoves(t *testing.T) {
	const end = 1<<32 - 1
	for name, c := range map[string]struct {
		values []uint64
		seen   uint64
	}{
		"up":                        {[]uint64{5, 5, 9}, 4},
		"round 32 bits":             {[]uint64{end - 1, 2}, 4},
		"stuck at 32 bits":          {[]uint64{end - 4, end, end, end}, 4},
		"anew from the middle":      {[]uint64{1 << 31, 2, 3}, 1},
		"anew from beyond 32 bits":  {[]uint64{1 << 33, 2, 3}, 1},
		"anew not from near zero":   {[]uint64{end, 1 << 31, 1<<31 + 1}, 1},
		"anew from the end of all":  {[]uint64{1<<64 - 1, 0, 1}, 1},
		"beyond 32 bits":            {[]uint64{end, end + 7}, 7},
		"the first is no movement":  {[]uint64{1 << 60}, 0},
		"stuck at 16 bits for good": {[]uint64{65534, 65535, 65535}, 1},
	} {
		var got counter
		for _, v := range c.values {
			got.move(v)
		}
		if got.seen != c.seen {
			t.Errorf("%s: %d, want %d", name, got.seen, c.seen)
		}
	}
}

func TestStuckBytesAreNotKnown(t *testing.T) {
	host := newSysfs(t)
	port := host.hca("mlx4_0", slot1)
	host.write(port+"/counters/port_rcv_data", 1<<32-1)
	b := newBench(t, host)
	b.next(time.Second)
	p := b.next(time.Second).Devices[0].Ports[0]
	if p.MovedKnown || !p.TotalKnown {
		t.Errorf("%+v", p)
	}
}

func TestGauges(t *testing.T) {
	host := newSysfs(t)
	port := host.hca("bnxt_re0", slot1)
	host.write(port+"/hw_counters/active_qps", 9)
	b := newBench(t, host)
	b.next(time.Second)
	for _, n := range []uint64{4, 8} {
		host.write(port+"/hw_counters/active_qps", n)
		p := b.next(time.Second).Devices[0].Ports[0]
		if c := counted(t, &p, "active_qps"); c != (event.RDMACounter{Name: "active_qps", Count: n}) {
			t.Errorf("%+v", c)
		}
	}
}

func TestKinds(t *testing.T) {
	k := newKinds()
	for name, want := range map[string]event.RDMACounterKind{
		"rp_cnp_ignored": event.RDMACongestion, "vport_out_of_sequence": event.RDMACongestion,
		"rx_roce_discards": event.RDMACongestion, "to_retransmits": event.RDMACongestion,
		"RNR sent": event.RDMACongestion, "cnpSent": event.RDMACongestion, "rx_drops": event.RDMACongestion,
		"hw_rx_pps_limit_drop_cnt": event.RDMACongestion, "responder_oos": event.RDMACongestion,
		"link_downed": event.RDMAError, "port_xmit_discards": event.RDMAError, "bad_resp_err": event.RDMAError,
		"tcpInProtoErrors": event.RDMAError, "rdma_read_wr_err": event.RDMAError, "nak_access_error": event.RDMAError,
		"verbs_destroy_qp_failed_cnt": event.RDMAError, "max_retry_exceeded": event.RDMAError,
		"vport_resp_cqe_error": event.RDMAError, "vport_resp_cqe_flush_error": event.RDMAOther,
		"rx_read_requests": event.RDMAOther, "send_wrs": event.RDMAOther, "": event.RDMAOther, "vport_": event.RDMAOther,
	} {
		if got := k.kind(name); got != want {
			t.Errorf("%q: %d, want %d", name, got, want)
		}
	}
}
