// SPDX-License-Identifier: Apache-2.0

package main

import "fmt"

const (
	asked  = ofWorkloads + `,role="client"`
	serves = ofNodes + `,role="server"`
)

// dnsFailures is the share of questions that got no answer of use. NXDOMAIN is
// one: search lists live on it. A label that says why is what makes the union
// whole.
func dnsFailures(selector, by string) string {
	of := selector + `,role="client"`
	return fmt.Sprintf(`sum%s (rate(%s{%s,rcode!~"NOERROR|NXDOMAIN|__other__"}[$__rate_interval]) or rate(%s{%s}[$__rate_interval])) / %s`,
		grouped(by), answersMetric, of, timeoutsMetric, of, rate(queriesMetric, of, by))
}

func dnsBoard() *dashboard {
	return &dashboard{
		uid: "orb8-dns", title: "orb8 / DNS", text: "What pods ask the DNS, and what they are answered. Each look-up is seen at the pod that asks and, where it runs in a pod, at the server.",
		variables: []variable{node, namespace, workload},
		rows: []row{
			{"Now", []panel{
				{kind: stat, title: "Queries", unit: "reqps", text: "Questions asked, those included that were sent again.", queries: []query{{rate(queriesMetric, asked, ""), "queries"}}},
				{kind: stat, title: "Failures", unit: "percentunit", text: "Share of the questions that were answered with an error other than NXDOMAIN, or not at all.", queries: []query{{dnsFailures(ofWorkloads, ""), "failures"}}},
				{kind: stat, title: "Timeouts", unit: "reqps", text: "Look-ups that nobody answered.", queries: []query{{rate(timeoutsMetric, asked, ""), "timeouts"}}},
				{kind: stat, title: "Search lists", unit: "percentunit", text: "Share of the questions that only tried a search list. End names with a dot, or set ndots:1.", queries: []query{{ratio(rate(wasteMetric, asked, ""), rate(queriesMetric, asked, "")), "search lists"}}},
				{kind: stat, title: "Latency, p50", unit: "s", text: "Median time from a question to its answer.", queries: []query{{quantile(0.5, latencyMetric, asked, ""), "p50"}}},
				{kind: stat, title: "Latency, p99", unit: "s", text: "99th percentile of the time from a question to its answer.", queries: []query{{quantile(0.99, latencyMetric, asked, ""), "p99"}}},
			}},
			{"Clients", []panel{
				{kind: lines, title: "Queries", unit: "reqps", text: "Questions, by who asks.", queries: []query{{top(20, rate(queriesMetric, asked, perWorkload)), aWorkload}}},
				{kind: areas, title: "Answers", unit: "reqps", text: "Answers, by response code. NXDOMAIN is mostly what search lists try.", queries: []query{{rate(answersMetric, asked, "rcode"), "{{rcode}}"}}},
				{kind: lines, title: "Latency", unit: "s", text: "From the first question to the answer. Five seconds is a resolver's patience: a question was lost.", queries: quantiles(latencyMetric, asked)},
				{kind: lines, title: "Failures", unit: "percentunit", text: "Share of the questions that were answered with an error other than NXDOMAIN, or not at all, by who asks.", queries: []query{{top(20, dnsFailures(ofWorkloads, perWorkload)), aWorkload}}},
				{kind: lines, title: "Timeouts", unit: "reqps", text: "Look-ups that nobody answered, by who asks.", queries: []query{{top(20, rate(timeoutsMetric, asked, perWorkload)), aWorkload}}},
				{kind: lines, title: "Search lists", unit: "reqps", text: "Look-ups that only tried a search list, by who asks.", queries: []query{{top(20, rate(wasteMetric, asked, perWorkload)), aWorkload}}},
				{kind: table, title: "Who wastes most on search lists", unit: "short", text: "Look-ups for a search list alone in the time that is shown.", queries: []query{{most(20, wasteMetric, asked, perWorkload), "look-ups"}}},
			}},
			{"Servers in pods", []panel{
				{kind: lines, title: "Queries", unit: "reqps", text: "Questions that a server was asked, by server and node.", queries: []query{{rate(queriesMetric, serves, "node, "+perWorkload), aWorkload + " {{node}}"}}},
				{kind: areas, title: "Answers", unit: "reqps", text: "What servers answered, by response code.", queries: []query{{rate(answersMetric, serves, "rcode"), "{{rcode}}"}}},
				{kind: lines, title: "Latency", unit: "s", text: "How long servers take. Less than what clients see: the way is long, or loses packets.", queries: quantiles(latencyMetric, serves)},
				{kind: lines, title: "Timeouts", unit: "reqps", text: "Questions that reached a server and were not answered.", queries: []query{{rate(timeoutsMetric, serves, "node, "+perWorkload), aWorkload + " {{node}}"}}},
			}},
		},
	}
}
