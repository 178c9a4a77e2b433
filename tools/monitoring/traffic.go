// SPDX-License-Identifier: Apache-2.0

package main

// Selectors of what is chosen on top.
const (
	ofNodes     = `node=~"$node"`
	ofWorkloads = ofNodes + `,namespace=~"$namespace",workload=~"$workload"`
	ofPods      = ofWorkloads + `,pod=~"$pod"`

	sent     = `,direction="egress"`
	received = `,direction="ingress"`
)

// Variables; each knows those before it.
var (
	node      = variable{"node", "Node", "label_values(orb8_agent_uptime_seconds, node)"}
	namespace = variable{"namespace", "Namespace", "label_values(orb8_network_bytes_total{" + ofNodes + "}, namespace)"}
	workload  = variable{"workload", "Workload", `label_values(orb8_network_bytes_total{` + ofNodes + `,namespace=~"$namespace"}, workload)`}
	pod       = variable{"pod", "Pod", "label_values(orb8_network_bytes_total{" + ofWorkloads + "}, pod)"}
)

const (
	bytesMetric    = "orb8_network_bytes_total"
	packetsMetric  = "orb8_network_packets_total"
	openedMetric   = "orb8_connections_opened_total"
	failedMetric   = "orb8_connections_failed_total"
	resentMetric   = "orb8_tcp_retransmits_total"
	dropsMetric    = "orb8_drops_total"
	rttMetric      = "orb8_tcp_rtt_seconds"
	shakesMetric   = "orb8_tcp_handshake_seconds"
	queriesMetric  = "orb8_dns_queries_total"
	answersMetric  = "orb8_dns_responses_total"
	timeoutsMetric = "orb8_dns_timeouts_total"
	wasteMetric    = "orb8_dns_search_waste_total"
	latencyMetric  = "orb8_dns_latency_seconds"

	perWorkload = "namespace, workload"
	aWorkload   = "{{namespace}}/{{workload}}"
	bothEnds    = "namespace, workload, peer_class, peer_namespace, peer_workload"
)

const onceEach = " A connection between two pods is counted at each of them as its own."

func resentShare(selector, by string) string {
	return ratio(rate(resentMetric, selector, by), rate(packetsMetric, selector+sent+`,protocol="TCP"`, by))
}

func clusterBoard() *dashboard {
	return &dashboard{
		uid: "orb8-cluster", title: "orb8 / Cluster", text: "Who talks to whom in the cluster, how much and how healthily.",
		variables: []variable{node},
		rows: []row{
			{"Now", []panel{
				{kind: stat, title: "Agents", unit: "short", text: "Agents that answer. Fewer than nodes: see the alert Orb8AgentDown.", queries: []query{{"count(orb8_build_info{" + ofNodes + "})", "agents"}}},
				{kind: stat, title: "Connections", unit: "short", text: "Connections in the agents' tables.", queries: []query{{"sum(orb8_active_flows{" + ofNodes + "})", "connections"}}},
				{kind: stat, title: "Sent", unit: "Bps", text: "Bytes that all ends sent." + onceEach, queries: []query{{rate(bytesMetric, ofNodes+sent, ""), "sent"}}},
				{kind: stat, title: "Failed connects", unit: "cps", text: "Connections that were never open, in a second.", queries: []query{{rate(failedMetric, ofNodes, ""), "failed"}}},
				{kind: stat, title: "Retransmitted", unit: "percentunit", text: "Share of the TCP segments sent that were sent again. Above 1 % something on the way loses or reorders packets.", queries: []query{{resentShare(ofNodes, ""), "retransmitted"}}},
				{kind: stat, title: "Drops", unit: "pps", text: "Packets that the kernels dropped. The dashboard Drops says why.", queries: []query{{rate(dropsMetric, ofNodes, ""), "drops"}}},
			}},
			{"Traffic", []panel{
				{kind: lines, title: "Bytes", unit: "Bps", text: "Bytes on the wire, Ethernet headers included." + onceEach, queries: []query{{rate(bytesMetric, ofNodes, "direction"), "{{direction}}"}}},
				{kind: lines, title: "Packets", unit: "pps", text: "Segments on the wire." + onceEach, queries: []query{{rate(packetsMetric, ofNodes, "protocol, direction"), "{{protocol}} {{direction}}"}}},
				{kind: areas, title: "Sent, by what is at the other end", unit: "Bps", text: "external leaves the cluster; service is a Service of which it is not known who serves it; node is a node and what runs on it without a network of its own.", queries: []query{{rate(bytesMetric, ofNodes+sent, "peer_class"), "{{peer_class}}"}}},
				{kind: areas, title: "Sent, by namespace", unit: "Bps", text: "The ten namespaces that send most. Without a name: the nodes' own traffic.", queries: []query{{top(10, rate(bytesMetric, ofNodes+sent, "namespace")), "{{namespace}}"}}},
				{kind: lines, title: "Sent, by node", unit: "Bps", text: "What the ends on a node sent.", queries: []query{{rate(bytesMetric, ofNodes+sent, "node"), "{{node}}"}}},
				{kind: lines, title: "Connections, by node", unit: "short", text: "Connections in the agents' tables.", queries: []query{{"sum by (node) (orb8_active_flows{" + ofNodes + "})", "{{node}}"}}},
				{kind: table, title: "Who sends most to whom", unit: "decbytes", text: "The largest sums of bytes sent in the time that is shown.", queries: []query{{most(20, bytesMetric, ofNodes+sent, bothEnds), "sent"}}},
			}},
			{"Connections", []panel{
				{kind: lines, title: "Opened", unit: "cps", text: "Connections opened, by either end; of UDP the first packet opens.", queries: []query{{rate(openedMetric, ofNodes, "protocol"), "{{protocol}}"}}},
				{kind: lines, title: "Failed", unit: "cps", text: "Connections that were never open: refused, no answer (timed_out), no way (unreachable), reset, or given_up by their own process.", queries: []query{{rate(failedMetric, ofNodes, "reason"), "{{reason}}"}}},
				{kind: lines, title: "Retransmitted", unit: "percentunit", text: "Share of the TCP segments sent that were sent again, by the node of the sender.", queries: []query{{resentShare(ofNodes, "node"), "{{node}}"}}},
				{kind: lines, title: "Round trip", unit: "s", text: "Smoothed round-trip time of TCP connections, once for each second in which one sent.", queries: quantiles(rttMetric, ofNodes)},
				{kind: lines, title: "Handshake", unit: "s", text: "From the first SYN to its answer: how long connecting takes. Much more than the round trip: a SYN was lost, or the server's accept queue is full.", queries: quantiles(shakesMetric, ofNodes)},
				{kind: table, title: "Where connecting fails", unit: "short", text: "The most failed connects in the time that is shown.", width: 12, queries: []query{{most(20, failedMetric, ofNodes, bothEnds+", reason"), "failed"}}},
			}},
		},
	}
}

func workloadBoard() *dashboard {
	each := func(metric, more string) string { return top(20, rate(metric, ofWorkloads+more, perWorkload)) }
	return &dashboard{
		uid: "orb8-workload", title: "orb8 / Namespace and workload", text: "What workloads say to whom, and how healthily. The node's own traffic has no namespace, and is there where all namespaces are.",
		variables: []variable{node, namespace, workload},
		rows: []row{
			{"Traffic", []panel{
				{kind: lines, title: "Sent", unit: "Bps", text: "Bytes sent, Ethernet headers included.", queries: []query{{each(bytesMetric, sent), aWorkload}}},
				{kind: lines, title: "Received", unit: "Bps", text: "Bytes received, Ethernet headers included.", queries: []query{{each(bytesMetric, received), aWorkload}}},
				{kind: lines, title: "Packets", unit: "pps", text: "Segments sent and received.", queries: []query{{each(packetsMetric, ""), aWorkload}}},
				{kind: areas, title: "By what is at the other end", unit: "Bps", text: "Bytes sent and received. external is outside of the cluster.", queries: []query{{rate(bytesMetric, ofWorkloads, "peer_class, direction"), "{{peer_class}} {{direction}}"}}},
				{kind: table, title: "Peers", unit: "decbytes", text: "Bytes in the time that is shown, by both ends and direction.", queries: []query{{most(50, bytesMetric, ofWorkloads, bothEnds+", direction, protocol"), "bytes"}}},
			}},
			{"Connections", []panel{
				{kind: lines, title: "Connections", unit: "short", text: "Connections in the agents' tables.", queries: []query{{"topk(20, sum by (" + perWorkload + ") (orb8_active_flows{" + ofWorkloads + "}))", aWorkload}}},
				{kind: lines, title: "Opened", unit: "cps", text: "Connections opened, by either end. Many of few bytes each: a pool of connections may be missing.", queries: []query{{each(openedMetric, ""), aWorkload}}},
				{kind: lines, title: "Failed", unit: "cps", text: "Connections that were never open, by reason.", queries: []query{{top(20, rate(failedMetric, ofWorkloads, perWorkload+", reason")), aWorkload + " {{reason}}"}}},
				{kind: lines, title: "Retransmitted", unit: "percentunit", text: "Share of the TCP segments sent that were sent again.", queries: []query{{top(20, resentShare(ofWorkloads, perWorkload)), aWorkload}}},
				{kind: lines, title: "Round trip, p99", unit: "s", text: "99th percentile of the smoothed round-trip time of TCP connections.", queries: []query{{top(20, "("+quantile(0.99, rttMetric, ofWorkloads, perWorkload)+")"), aWorkload}}},
				{kind: lines, title: "Handshake, p99", unit: "s", text: "99th percentile of the time from the first SYN to its answer.", queries: []query{{top(20, "("+quantile(0.99, shakesMetric, ofWorkloads, perWorkload)+")"), aWorkload}}},
			}},
			{"Drops and the DNS", []panel{
				{kind: lines, title: "Drops", unit: "pps", text: "Packets that the kernel dropped, by its reason.", queries: []query{{top(20, rate(dropsMetric, ofWorkloads, perWorkload+", reason")), aWorkload + " {{reason}}"}}},
				{kind: lines, title: "DNS queries", unit: "reqps", text: "Questions that the workload asked.", queries: []query{{each(queriesMetric, `,role="client"`), aWorkload}}},
				{kind: lines, title: "DNS failures", unit: "percentunit", text: "Share of the questions that were answered with an error other than NXDOMAIN, or not at all.", queries: []query{{top(20, dnsFailures(ofWorkloads, perWorkload)), aWorkload}}},
				{kind: lines, title: "DNS latency, p99", unit: "s", text: "99th percentile of the time from a question to its answer.", queries: []query{{top(20, "("+quantile(0.99, latencyMetric, ofWorkloads+`,role="client"`, perWorkload)+")"), aWorkload}}},
			}},
		},
	}
}

func podBoard() *dashboard {
	const perPod, aPod = "namespace, pod", "{{namespace}}/{{pod}}"
	each := func(metric, more string) string { return top(20, rate(metric, ofPods+more, perPod)) }
	return &dashboard{
		uid: "orb8-pod", title: "orb8 / Pod", text: "Single pods. The agents must tell of them: ORB8_METRICS_LEVEL=pod, else there is one line of each namespace, without a pod.",
		variables: []variable{node, namespace, workload, pod},
		rows: []row{
			{"Traffic", []panel{
				{kind: lines, title: "Sent", unit: "Bps", text: "Bytes sent, Ethernet headers included.", queries: []query{{each(bytesMetric, sent), aPod}}},
				{kind: lines, title: "Received", unit: "Bps", text: "Bytes received, Ethernet headers included.", queries: []query{{each(bytesMetric, received), aPod}}},
				{kind: lines, title: "Packets sent", unit: "pps", text: "Segments sent.", queries: []query{{each(packetsMetric, sent), aPod}}},
				{kind: lines, title: "Packets received", unit: "pps", text: "Segments received.", queries: []query{{each(packetsMetric, received), aPod}}},
				{kind: table, title: "Peers", unit: "decbytes", text: "Bytes in the time that is shown, by pod and the workload at the other end.", queries: []query{{most(50, bytesMetric, ofPods, "namespace, pod, peer_class, peer_namespace, peer_workload, direction, protocol"), "bytes"}}},
			}},
			{"Connections", []panel{
				{kind: lines, title: "Connections", unit: "short", text: "Connections in the agents' tables.", queries: []query{{"topk(20, sum by (" + perPod + ") (orb8_active_flows{" + ofPods + "}))", aPod}}},
				{kind: lines, title: "Opened", unit: "cps", text: "Connections opened, by either end.", queries: []query{{each(openedMetric, ""), aPod}}},
				{kind: lines, title: "Failed", unit: "cps", text: "Connections that were never open, by reason.", queries: []query{{top(20, rate(failedMetric, ofPods, perPod+", reason")), aPod + " {{reason}}"}}},
				{kind: lines, title: "Retransmitted", unit: "percentunit", text: "Share of the TCP segments sent that were sent again. One pod above its siblings: look at its node.", queries: []query{{top(20, resentShare(ofPods, perPod)), aPod}}},
			}},
			{"Drops and the DNS", []panel{
				{kind: lines, title: "Drops", unit: "pps", text: "Packets that the kernel dropped, by its reason.", queries: []query{{top(20, rate(dropsMetric, ofPods, perPod+", reason")), aPod + " {{reason}}"}}},
				{kind: lines, title: "DNS queries", unit: "reqps", text: "Questions, by whether the pod asked (client) or was asked (server).", queries: []query{{top(20, rate(queriesMetric, ofPods, perPod+", role")), aPod + " {{role}}"}}},
				{kind: lines, title: "DNS answers", unit: "reqps", text: "Answers that the pod got, by response code.", queries: []query{{top(20, rate(answersMetric, ofPods+`,role="client"`, perPod+", rcode")), aPod + " {{rcode}}"}}},
				{kind: lines, title: "DNS timeouts", unit: "reqps", text: "Look-ups of the pod that nobody answered.", queries: []query{{top(20, rate(timeoutsMetric, ofPods+`,role="client"`, perPod)), aPod}}},
			}},
		},
	}
}
