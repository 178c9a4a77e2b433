// SPDX-License-Identifier: Apache-2.0

package main

const aNode = "{{node}}"

func gauge(metric, by string) string {
	return "sum by (" + by + ") (" + metric + "{" + ofNodes + "})"
}

func agentBoard() *dashboard {
	return &dashboard{
		uid: "orb8-agent", title: "orb8 / Agents", text: "Whether the agents see all, and what they cost.",
		variables: []variable{node},
		rows:      []row{agentHealth(), agentAccount(), agentCost(), agentPrograms(), agentSeries()},
	}
}

func agentHealth() row {
	return row{"Health", []panel{
		{kind: stat, title: "Agents", unit: "short", text: "Agents that answer.", queries: []query{{"count(orb8_build_info{" + ofNodes + "})", "agents"}}},
		{kind: stat, title: "Versions", unit: "short", text: "More than one: a roll-out is under way, or has stopped half way.", queries: []query{{"count(count by (version) (orb8_build_info{" + ofNodes + "}))", "versions"}}},
		{kind: stat, title: "Youngest", unit: "s", text: "Time since the last start of an agent.", queries: []query{{"min(orb8_agent_uptime_seconds{" + ofNodes + "})", "uptime"}}},
		{kind: stat, title: "Pods known", unit: "short", text: "Pods that an agent knows, of all nodes, those included that have just gone.", queries: []query{{"max(orb8_pods_tracked{" + ofNodes + "})", "pods"}}},
		{kind: stat, title: "Losses", unit: "cps", text: "What was not delivered or not told apart, of all stages.", queries: []query{{rate("orb8_events_dropped_total", ofNodes, ""), "losses"}}},
		{kind: stat, title: "Fullest table", unit: "percentunit", text: "The fullest table of all agents. At 100 % the kernel counts packets without their connection, or the agent forgets connections early.", queries: []query{{"max(orb8_table_entries{" + ofNodes + "} / orb8_table_max_entries{" + ofNodes + "})", "full"}}},
		{kind: lines, title: "Losses, by stage", unit: "cps", text: "The stages are those of `orb8 status`. dns_… and hello_… are messages that were not understood: mostly others' mistakes.", queries: []query{{rate("orb8_events_dropped_total", ofNodes, "node, stage"), aNode + " {{stage}}"}}},
		{kind: lines, title: "Tables", unit: "percentunit", text: "kernel: the kernel's table in the last epoch (ORB8_TABLE_ENTRIES); flows: the agent's own (ORB8_MAX_FLOWS).", queries: []query{{"orb8_table_entries{" + ofNodes + "} / orb8_table_max_entries{" + ofNodes + "}", aNode + " {{table}}"}}},
		{kind: lines, title: "Updates of connections", unit: "ops", text: "Updates that were read from the kernel: a connection has one in each second in which it moves something.", queries: []query{{rate("orb8_events_processed_total", ofNodes, "node"), aNode}}},
		{kind: lines, title: "Uptime", unit: "s", text: "Time since an agent began to count. A saw: it restarts.", queries: []query{{"orb8_agent_uptime_seconds{" + ofNodes + "}", aNode}}},
	}}
}

func agentAccount() row {
	return row{"Does it add up", []panel{
		{kind: lines, title: "Unaccounted packets", unit: "short", text: "What interfaces counted and the tap did not, or the other way round, beyond what segmentation offload explains. 0 is right.", queries: []query{{gauge("orb8_tap_unaccounted_packets", "node, direction"), aNode + " {{direction}}"}}},
		{kind: lines, title: "Unaccounted bytes", unit: "decbytes", text: "What interfaces counted and the tap did not, or the other way round, beyond what segmentation offload explains. 0 is right.", queries: []query{{gauge("orb8_tap_unaccounted_bytes", "node, direction"), aNode + " {{direction}}"}}},
		{kind: areas, title: "All packets, by what became of them", unit: "pps", text: "flows: in the series of connections. forwarded: of others, passing through. carried: of another place's connections. unplaced, overflow: there was no room. not_ip, malformed: as they say.", queries: []query{{rate("orb8_tap_packets_total", ofNodes, "class"), "{{class}}"}}},
		{kind: areas, title: "All bytes, by what became of them", unit: "Bps", text: "As packets.", queries: []query{{rate("orb8_tap_bytes_total", ofNodes, "class"), "{{class}}"}}},
		{kind: lines, title: "Tap and interfaces, packets", unit: "pps", text: "What the tap counted and what the interfaces counted themselves. They differ where the card segments packets.", queries: []query{
			{rate("orb8_tap_packets_total", ofNodes, "direction"), "tap {{direction}}"},
			{rate("orb8_interface_packets_total", ofNodes, "direction"), "interfaces {{direction}}"},
		}},
		{kind: lines, title: "Tap and interfaces, bytes", unit: "Bps", text: "As packets.", queries: []query{
			{rate("orb8_tap_bytes_total", ofNodes, "direction"), "tap {{direction}}"},
			{rate("orb8_interface_bytes_total", ofNodes, "direction"), "interfaces {{direction}}"},
		}},
	}}
}

func agentCost() row {
	return row{"Cost", []panel{
		{kind: lines, title: "CPU", unit: "percentunit", text: "Share of one core that an agent takes, without its kernel programs.", queries: []query{{rate("orb8_agent_cpu_seconds_total", ofNodes, "node, mode"), aNode + " {{mode}}"}}},
		{kind: lines, title: "CPU for each update", unit: "s", text: "Processor time divided by updates of connections: what telling of one costs.", queries: []query{{ratio(rate("orb8_agent_cpu_seconds_total", ofNodes, "node"), rate("orb8_events_processed_total", ofNodes, "node")), aNode}}},
		{kind: lines, title: "Memory", unit: "bytes", text: "Resident memory of an agent.", queries: []query{{gauge("orb8_agent_resident_memory_bytes", "node"), aNode}}},
		{kind: lines, title: "Kernel's memory", unit: "bytes", text: "What the kernel holds for an agent's maps. The pod's limit includes it.", queries: []query{{gauge("orb8_agent_kernel_maps_bytes", "node"), aNode}}},
	}}
}

func agentPrograms() row {
	const seconds, runs = "orb8_bpf_program_seconds_total", "orb8_bpf_program_runs_total"
	return row{"Kernel programs (only with ORB8_BPF_STATS=true)", []panel{
		{kind: lines, title: "Time", unit: "percentunit", text: "Share of one core that an agent's kernel programs take, on whichever processor they run.", queries: []query{{rate(seconds, ofNodes, "node"), aNode}}},
		{kind: lines, title: "Time of a run", unit: "s", text: "What one run of a program takes: of flow_… one packet.", queries: []query{{ratio(rate(seconds, ofNodes, "program"), rate(runs, ofNodes, "program")), "{{program}}"}}},
		{kind: lines, title: "Runs", unit: "ops", text: "Runs of each program.", queries: []query{{rate(runs, ofNodes, "program"), "{{program}}"}}},
	}}
}

func agentSeries() row {
	return row{"Metrics", []panel{
		{kind: lines, title: "Series", unit: "short", text: "Series of the largest metric of an agent, and how many it may have (ORB8_METRICS_MAX_SERIES).", queries: []query{
			{"max by (node) (orb8_metrics_series{" + ofNodes + "})", aNode},
			{"max(orb8_metrics_max_series{" + ofNodes + "})", "most"},
		}},
		{kind: lines, title: "Series, by metric", unit: "short", text: "Series of each metric, of all agents.", queries: []query{{gauge("orb8_metrics_series", "metric"), "{{metric}}"}}},
		{kind: lines, title: "Counted together", unit: "ops", text: "Updates that were counted under __other__, for want of a series of their own. 0 is right: tell less (ORB8_METRICS_LEVEL) or allow more.", queries: []query{{rate("orb8_metrics_beyond_total", ofNodes, "metric"), "{{metric}}"}}},
	}}
}
