// SPDX-License-Identifier: Apache-2.0

package main

import "fmt"

const (
	ofPort = "node, device, port"
	// What drivers call packets that were lost, or came too late, and those that were
	// marked on the way.
	lostByRDMA   = `counter=~"out_of_sequence|packet_seq_err|local_ack_timeout_err|rnr_nak_retry_err|out_of_buffer|(rx|tx)(_roce)?_discards|rx_drops|retrans_pkts|to_retransmits|RetransSegs"`
	markedByRDMA = `counter=~"np_ecn_marked_roce_packets|rx_ecn_marked_pkts|RxECNMrkd|received_ecns|rx_rdma_ecn_pkts|cc_rx_ce_pkts"`
)

func gpuAlerts() []alert {
	const (
		whose  = `{{ with $labels.pod }}{{ $labels.namespace }}/{{ . }}{{ else }}nobody that is known{{ end }}`
		device = `GPU {{ $labels.gpu }}{{ with $labels.mig }} ({{ . }}){{ end }} of {{ $labels.node }}`
	)
	port := func(metric, selector string) string {
		return fmt.Sprintf("sum by (%s) (rate(%s{%s}[5m]))", ofPort, metric, selector)
	}
	return []alert{
		{
			// 13, 31, 43 and 45 are most often a program's own mistakes.
			name: "Orb8GPUXid", hold: "0m", severity: warning,
			expr:        `sum by (` + perDevice + `, namespace, pod, xid) (increase(` + xidMetric + `{xid!~"13|31|43|45"}[15m])) > 0`,
			summary:     device + " has had Xid {{ $labels.xid }}",
			description: "The driver told of it within a quarter of an hour. The GPU was held by " + whose + ".",
		},
		{
			name: "Orb8GPUThrottled", hold: "10m", severity: warning,
			expr: "max by (" + perGPU + ") (sum by (" + perGPU + ", reason) (\n" +
				`  rate(orb8_gpu_throttle_seconds_total{reason=~"thermal|hardware_thermal|hardware|power_brake"}[5m])` + "\n)) > 0.1",
			summary:     device + " is throttled",
			description: "{{ $value | humanizePercentage }} of the time its clocks are held down, because it is too hot or is not given enough power.",
		},
		{
			name: "Orb8GPULost", hold: "1m", severity: critical,
			expr:        `max by (` + perDevice + `, state) (orb8_gpu_state{state!="ok"}) > 0`,
			summary:     device + " is {{ $labels.state }}",
			description: "lost: it has fallen off the bus, or needs a reset. hung: the driver does not come back with an answer. What runs on it does not go on.",
		},
		{
			name: "Orb8GPUDriver", hold: "5m", severity: warning,
			expr:        "max by (node) (orb8_gpu_driver_open == 0 unless orb8_gpu_driver_released == 1\nor orb8_gpu_driver_hung_calls > 0) >= 0",
			summary:     "The GPU driver of {{ $labels.node }} does not answer the agent",
			description: "The agent cannot open the driver, or calls of it have not come back. What GPUs there do is not known.",
		},
		{
			// The cause may change meanwhile.
			name: "Orb8GPUIdle", hold: "15m", severity: warning,
			expr:        `max by (` + perDevice + `, namespace, pod) (orb8_gpu_finding{kind="idle"}) > 0`,
			summary:     device + " does nothing for " + whose,
			description: "It is held, and idle, for a quarter of an hour.",
		},
		{
			name: "Orb8GPUBusyWaiting", hold: "15m", severity: warning,
			expr:        `max by (` + perDevice + `, namespace, pod) (orb8_gpu_finding{kind="busy-waiting"}) > 0`,
			summary:     device + " spins for " + whose,
			description: "It has been busy for a quarter of an hour, and computes nothing: it waits for others in a collective.",
		},
		{
			name: "Orb8RDMACongestion", hold: "10m", severity: warning,
			expr: port("orb8_rdma_congestion_total", lostByRDMA) + " > 1\nor " + port("orb8_rdma_congestion_total", markedByRDMA) +
				" > 0.05 * " + port("orb8_rdma_packets_total", `direction="ingress"`),
			summary:     "RDMA of {{ $labels.device }}/{{ $labels.port }} of {{ $labels.node }} is congested",
			description: "{{ $value | humanize }} packets a second are lost, or were marked on a full way and are more than 5 % of all.",
		},
	}
}
