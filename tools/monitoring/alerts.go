// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// alert is one of Prometheus. Each has a section in docs/runbooks.md.
type alert struct {
	name, expr string
	// How long it must hold.
	hold                 string
	severity             string
	summary, description string
}

// runbooks is where the sections are.
const runbooks = "https://github.com/orb8/orb8/blob/main/docs/runbooks.md#"

const (
	warning  = "warning"
	critical = "critical"
	// What scrapes agents names them so.
	agents = `job="orb8-agent"`
	// What others send and the agent cannot read is no loss of the agent's.
	lost = `orb8_events_dropped_total{stage!~"dns_.*|hello_.*|follower"}`
)

func alerts() []alert { return slices.Concat(agentAlerts(), trafficAlerts(), gpuAlerts()) }

func agentAlerts() []alert {
	return []alert{
		{
			name: "Orb8AgentDown", hold: "5m", severity: warning,
			expr:        "up{" + agents + "} == 0",
			summary:     "The orb8 agent of {{ $labels.node }} does not answer",
			description: "{{ $labels.instance }} has not answered Prometheus for five minutes: what happens on that node is not seen.",
		},
		{
			name: "Orb8AgentsMissing", hold: "5m", severity: critical,
			expr:        "absent(up{" + agents + "} == 1)",
			summary:     "No orb8 agent answers",
			description: "Prometheus reaches no agent of orb8, or does not look for any (job orb8-agent).",
		},
		{
			// A stage is there from its first loss, with what was lost by then.
			name: "Orb8LosingEvents", hold: "5m", severity: warning,
			expr: "sum by (node, instance, stage) (increase(" + lost + "[10m])) > 0\n" +
				"or sum by (node, instance, stage) (" + lost + " unless " + lost + " offset 10m) > 0",
			summary:     "The orb8 agent of {{ $labels.node }} loses at stage {{ $labels.stage }}",
			description: "{{ $value | humanize }} in ten minutes were not delivered or not told apart. Traffic stays counted, but not all of it has a name.",
		},
		{
			name: "Orb8UnaccountedTraffic", hold: "10m", severity: warning,
			expr: "delta(orb8_tap_unaccounted_packets[15m]) > 100\n" +
				"and delta(orb8_tap_unaccounted_packets[15m]) > 0.001 * increase(orb8_interface_packets_total[15m])",
			summary:     "The orb8 agent of {{ $labels.node }} does not see all packets ({{ $labels.direction }})",
			description: "In a quarter of an hour {{ $value | humanize }} packets were counted by interfaces and not by the tap, or the other way round: more than 0.1 %.",
		},
		{
			name: "Orb8TableNearlyFull", hold: "10m", severity: warning,
			expr:        "max_over_time(orb8_table_entries[5m]) / orb8_table_max_entries > 0.8",
			summary:     "Table {{ $labels.table }} of the orb8 agent of {{ $labels.node }} is nearly full",
			description: "{{ $value | humanizePercentage }} of it are in use. When it is full, the kernel counts packets without their connection, or the agent forgets connections early.",
		},
		{
			name: "Orb8MetricsCapped", hold: "5m", severity: warning,
			expr:        "sum by (node, instance, metric) (increase(orb8_metrics_beyond_total[15m])) > 0",
			summary:     "{{ $labels.metric }} of {{ $labels.node }} has as many series as it may",
			description: "What has no series of its own is counted under __other__: sums are right, names are missing.",
		},
	}
}

// Of workloads, by the node on which they are: one bad node shows.
const ofEach = "node, namespace, workload"

func in5m(metric, selector string) string {
	return fmt.Sprintf("sum by (%s) (rate(%s{%s}[5m]))", ofEach, metric, selector)
}

func trafficAlerts() []alert {
	const whose = `{{ with $labels.namespace }}{{ . }}/{{ end }}{{ or $labels.workload "the node itself" }} on {{ $labels.node }}`
	drops, packets := in5m(dropsMetric, ""), in5m(packetsMetric, "")
	tcp := in5m(packetsMetric, `direction="egress",protocol="TCP"`)
	questions := in5m(queriesMetric, `role="client"`)
	return []alert{
		{
			// Also of who has nothing but drops.
			name: "Orb8DropRate", hold: "10m", severity: warning,
			expr:        drops + " > 10\nunless " + drops + " < 0.01 * " + packets,
			summary:     "Packets of " + whose + " are dropped",
			description: "The kernel drops {{ $value | humanize }} packets a second, more than 1 % of all.",
		},
		{
			name: "Orb8DNSFailures", hold: "10m", severity: warning,
			expr: fmt.Sprintf("sum by (%s) (\n  rate(%s{role=\"client\",rcode!~\"NOERROR|NXDOMAIN|__other__\"}[5m])\n  or rate(%s{role=\"client\"}[5m])\n) / %s > 0.05\nand %[4]s > 0.1",
				ofEach, answersMetric, timeoutsMetric, questions),
			summary:     "The DNS fails " + whose,
			description: "{{ $value | humanizePercentage }} of the questions are answered with an error other than NXDOMAIN, or not at all.",
		},
		{
			name: "Orb8Retransmits", hold: "10m", severity: warning,
			expr:        in5m(resentMetric, "") + " / " + tcp + " > 0.02\nand " + tcp + " > 10",
			summary:     "TCP of " + whose + " is retransmitted",
			description: "{{ $value | humanizePercentage }} of the segments are sent again.",
		},
	}
}

const (
	licence   = "# SPDX-License-Identifier: Apache-2.0\n"
	generated = "# Made by make dashboards. Do not edit.\n"
)

// rules are a file for Prometheus.
func rules(all []alert) []byte {
	var b bytes.Buffer
	b.WriteString(licence + generated + "groups:\n  - name: orb8\n    rules:\n")
	for _, a := range all {
		fmt.Fprintf(&b, "      - alert: %s\n        expr: |-\n", a.name)
		for line := range strings.Lines(a.expr) {
			fmt.Fprintf(&b, "          %s", line)
		}
		fmt.Fprintf(&b, "\n        for: %s\n        labels:\n          severity: %s\n        annotations:\n", a.hold, a.severity)
		for _, note := range [...][2]string{{"summary", a.summary}, {"description", a.description}, {"runbook_url", a.runbook()}} {
			fmt.Fprintf(&b, "          %s: %s\n", note[0], strconv.Quote(note[1]))
		}
	}
	return b.Bytes()
}

func (a *alert) runbook() string { return runbooks + strings.ToLower(a.name) }

// prometheusRule are the same for Prometheus' operator.
func prometheusRule(all []alert) []byte {
	var b bytes.Buffer
	b.WriteString(licence + generated + "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: orb8-agent\n  labels:\n    app: orb8-agent\nspec:\n")
	for line := range strings.Lines(strings.TrimPrefix(string(rules(all)), licence+generated)) {
		b.WriteString("  " + line)
	}
	return b.Bytes()
}
