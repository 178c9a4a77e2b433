// SPDX-License-Identifier: Apache-2.0

package main

func dropsBoard() *dashboard {
	return &dashboard{
		uid: "orb8-drops", title: "orb8 / Drops", text: "Packets that the kernels dropped, by their own reasons. `orb8 drops` tells the place in the kernel and what a reason means, `orb8 trace drops` the connections.",
		variables: []variable{node, namespace, workload},
		rows: []row{
			{"All", []panel{
				{kind: stat, title: "Drops", unit: "pps", text: "Packets dropped in a second.", width: 8, queries: []query{{rate(dropsMetric, ofWorkloads, ""), "drops"}}},
				{kind: stat, title: "Share of all packets", unit: "percentunit", text: "Packets dropped for each that passed a tapped interface. Packets may be dropped before they pass one.", width: 8, queries: []query{{ratio(rate(dropsMetric, ofNodes, ""), rate("orb8_tap_packets_total", ofNodes, "")), "share"}}},
				{kind: stat, title: "Reasons", unit: "short", text: "Reasons for which packets were dropped in the time that is shown.", width: 8, queries: []query{{"count(sum by (reason) (increase(orb8_drops_total{" + ofWorkloads + "}[$__range])) > 0)", "reasons"}}},
			}},
			{"By what", []panel{
				{kind: areas, title: "By reason", unit: "pps", text: "NETFILTER_DROP: a rule, such as a network policy's. NO_SOCKET: nothing listens there. TCP_…: the connection's own state. SOCKET_RCVBUFF, SOCKET_BACKLOG: the process reads too slowly.", queries: []query{{rate(dropsMetric, ofWorkloads, "reason"), "{{reason}}"}}},
				{kind: areas, title: "By node", unit: "pps", text: "One node above the others: its network card, its load or its rules.", queries: []query{{rate(dropsMetric, ofWorkloads, "node"), "{{node}}"}}},
				{kind: lines, title: "By workload", unit: "pps", text: "Whose packets were dropped, sent or received.", queries: []query{{top(20, rate(dropsMetric, ofWorkloads, perWorkload)), aWorkload}}},
				{kind: lines, title: "By namespace", unit: "pps", text: "Without a name: of the nodes themselves.", queries: []query{{top(20, rate(dropsMetric, ofWorkloads, "namespace")), "{{namespace}}"}}},
				{kind: table, title: "Most", unit: "short", text: "Packets dropped in the time that is shown.", queries: []query{{most(50, dropsMetric, ofWorkloads, "node, "+perWorkload+", reason"), "packets"}}},
			}},
		},
	}
}
