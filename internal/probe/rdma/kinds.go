// SPDX-License-Identifier: Apache-2.0

package rdma

import (
	"strings"

	"github.com/orb8/orb8/internal/event"
)

// What drivers of Linux name so: mlx5, bnxt_re, irdma, efa, erdma, mana, hns,
// ionic, rxe, and what InfiniBand's ports count. Names come with a prefix where
// one device tells of another's.
const (
	congestionNames = `
port_xmit_wait
np_cnp_sent np_ecn_marked_roce_packets rp_cnp_handled rp_cnp_ignored np_cnp_pkts
cc_rx_ce_pkts cc_rx_cnp_pkts cc_tx_cnp_pkts
out_of_sequence out_of_buffer duplicate_request rnr_nak_retry_err packet_seq_err implied_nak_seq_err
local_ack_timeout_err roce_adp_retrans roce_adp_retrans_to roce_slow_restart roce_slow_restart_cnps
roce_slow_restart_trans
rx_roce_discards tx_roce_discards rx_discards tx_discards to_retransmits seq_err_naks_rcvd rnr_naks_rcvd
missing_resp dup_req oos_drop_count rx_out_of_buffer tx_cnp_pkts rx_cnp_pkts rx_ecn_marked_pkts
pacing_reschedule pacing_alerts
cnpHandled cnpIgnored cnpSent RxECNMrkd tcpRetransSegs RetransSegs ip4InDiscards ip6InDiscards
RNR_sent RNR_received Nak_Sequence_Error Nak_Sequence_Error_Implied
rx_drops retrans_bytes retrans_pkts retrans_timeout_events impaired_remote_conn_events
hw_disable_drop_cnt hw_bps_limit_drop_cnt hw_pps_limit_drop_cnt hw_rx_disable_drop_cnt
hw_rx_bps_limit_drop_cnt hw_rx_pps_limit_drop_cnt
requester_timeout requester_oos_nak requester_rnr_nak responder_rnr_nak responder_oos
responder_dup_request requester_implicit_nak requester_readresp_psn_mismatch received_cnps
dup_rx_requests sent_cnps received_ecns received_cnp_count qp_congested_events
rx_rdma_cnp_pkts tx_rdma_cnp_pkts rx_rdma_ecn_pkts
out_of_seq_request rcvd_rnr_err send_rnr_err rcvd_seq_err completer_retry_err
`
	errorNames = `
symbol_error link_error_recovery link_downed port_rcv_errors port_rcv_remote_physical_errors
port_xmit_constraint_errors port_rcv_constraint_errors local_link_integrity_errors
excessive_buffer_overrun_errors port_xmit_discards port_rcv_switch_relay_errors VL15_dropped
rx_icrc_encapsulated unresponsive_remote_events
rxVlanErrors ip4InTruncatedPkts ip6InTruncatedPkts ip4OutNoRoutes ip6OutNoRoutes
max_retry_exceeded unrecoverable_err recoverable_errors res_exceed_max res_length_mismatch res_exceeds_wqe
res_rx_invalid_rkey res_tx_invalid_rkey res_invalid_dup_rkey res_rx_no_perm res_tx_no_perm res_irrq_oflow
res_unsup_opcode res_unaligned_atomic
req_remote_invalid_request req_transport_retries_exceeded req_rnr_retries_exceeded
no_completion_cmds nak_inv_req nak_inv_read responder_malformed_wqe
requester_rnr_nak_retries_exceeded requester_retries_exceeded
`
	// What these have goes down as well.
	gaugeNames = `
active_pds active_ahs active_qps active_rc_qps active_ud_qps active_srqs active_cqs active_mrs active_mws
current_rate num_qps_congested db_fifo_register
`
)

// errorEnds are how drivers end the names of what went wrong.
var errorEnds = []string{"_err", "_error", "_errors", "Errors", "_errors_total", "_failed_cnt"}

// kinds tells what counters are, by name.
type kinds struct {
	of     map[string]event.RDMACounterKind
	gauges map[string]bool
}

func newKinds() *kinds {
	k := &kinds{of: map[string]event.RDMACounterKind{}, gauges: map[string]bool{}}
	for _, name := range strings.Fields(congestionNames) {
		k.of[name] = event.RDMACongestion
	}
	for _, name := range strings.Fields(errorNames) {
		k.of[name] = event.RDMAError
	}
	for _, name := range strings.Fields(gaugeNames) {
		k.gauges[name] = true
	}
	return k
}

// kind of a counter. A work request that was flushed is no error: so each queue
// pair ends.
func (k *kinds) kind(name string) event.RDMACounterKind {
	name = strings.ReplaceAll(strings.TrimPrefix(name, "vport_"), " ", "_")
	if kind, ok := k.of[name]; ok {
		return kind
	}
	if strings.HasSuffix(name, "_flush_error") {
		return event.RDMAOther
	}
	for _, end := range errorEnds {
		if strings.HasSuffix(name, end) {
			return event.RDMAError
		}
	}
	return event.RDMAOther
}
