// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
)

// Selectors of GPUs' holders. Of all, who is no pod is one.
const (
	ofHolders = ofNodes + `,namespace=~"$namespace",pod=~"$pod"`

	utilMetric  = "orb8_gpu_utilization_ratio"
	smMetric    = "orb8_gpu_sm_ratio"
	usedMetric  = "orb8_gpu_memory_used_bytes"
	powerMetric = "orb8_gpu_power_watts"
	xidMetric   = "orb8_gpu_xid_total"

	perGPU    = "node, gpu, uuid"
	perDevice = "node, gpu, mig, uuid"
	aGPU      = "{{node}} GPU {{gpu}}"
	aDevice   = aGPU + " {{mig}}"
	perHolder = "namespace, pod"
	aHolder   = "{{namespace}}/{{pod}}"
)

var (
	holderNamespace = variable{"namespace", "Namespace", "label_values(" + usedMetric + "{" + ofNodes + "}, namespace)"}
	holder          = variable{"pod", "Pod", "label_values(" + usedMetric + "{" + ofNodes + `,namespace=~"$namespace"}, pod)`}
)

// ofDevices sums the parts of holders: all of them are the device.
func ofDevices(metric string) string {
	return "sum by (" + perDevice + ") (" + metric + "{" + ofNodes + "})"
}

func ofGPUs(how, metric string) string {
	return how + " by (" + perGPU + ") (" + metric + "{" + ofNodes + "})"
}

func held(metric string) string {
	return top(20, "sum by ("+perHolder+") ("+metric+"{"+ofHolders+"})")
}

func gpuBoard() *dashboard {
	return &dashboard{
		uid: "orb8-gpu", title: "orb8 / GPUs and RDMA", text: "What GPUs do, for whom, and what moves between them meanwhile. Of a GPU that several pods share each has its part, and the parts add up to it.",
		variables: []variable{node, holderNamespace, holder},
		rows:      []row{gpuNow(), gpuFindings(), gpuDevices(), gpuHolders(), gpuHealth(), rdmaRow(), gpuDriver()},
	}
}

func gpuNow() row {
	const small = 3
	return row{"Now", []panel{
		{kind: stat, width: small, title: "GPUs", unit: "short", text: "GPUs, and not their MIG instances.", queries: []query{{`count(orb8_gpu_info{` + ofNodes + `,mig=""})`, "GPUs"}}},
		{kind: stat, width: small, title: "Given", unit: "short", text: "GPUs and MIG instances that the kubelet has given to a container.", queries: []query{{"count(count by (node, uuid) (orb8_gpu_allocated{" + ofNodes + "}))", "given"}}},
		{kind: stat, width: small, title: "Utilisation", unit: "percentunit", text: "Of all GPUs that tell: the part of the time in which a kernel ran.", queries: []query{{"avg(" + ofGPUs("sum", utilMetric) + ")", "utilisation"}}},
		{kind: stat, width: small, title: "SMs", unit: "percentunit", text: "The part of the SMs that had work. Much less than utilisation: kernels run, and leave most of the GPU empty.", queries: []query{{"avg(" + ofDevices(smMetric) + ")", "SMs"}}},
		{kind: stat, width: small, title: "Power", unit: "watt", text: "What all GPUs draw.", queries: []query{{"sum(" + powerMetric + "{" + ofNodes + "})", "power"}}},
		{kind: stat, width: small, title: "Findings", unit: "short", text: "GPUs that do no work for who holds them.", queries: []query{{"sum(orb8_gpu_finding{" + ofHolders + "})", "findings"}}},
		{kind: stat, width: small, title: "Xids", unit: "short", text: "Errors that drivers told, in the time that is shown.", queries: []query{{"sum(increase(" + xidMetric + "{" + ofNodes + "}[$__range]))", "Xids"}}},
		{kind: stat, width: small, title: "Lost or hung", unit: "short", text: "Devices that do not answer.", queries: []query{{`sum(orb8_gpu_state{` + ofNodes + `,state!="ok"})`, "devices"}}},
	}}
}

func gpuFindings() row {
	return row{"Why is this GPU idle", []panel{
		{kind: table, title: "Findings", unit: "short", text: "idle: somebody holds the GPU, and it does nothing. busy-waiting: it spins, most often in a collective. cause is what the holder's network does meanwhile: reads from storage, waits for a peer (which) or for the DNS, moves data by RDMA, or nothing. `orb8 gpu` says it in a sentence.", queries: []query{{"sum by (node, gpu, mig, namespace, pod, kind, cause, peer_namespace, peer_workload) (orb8_gpu_finding{" + ofHolders + "})", "devices"}}},
		{kind: lines, title: "Findings, by cause", unit: "short", text: "GPUs that do no work for who holds them, by what the network does meanwhile.", queries: []query{{"sum by (kind, cause) (orb8_gpu_finding{" + ofHolders + "})", "{{kind}} {{cause}}"}}},
		{kind: lines, title: "Given and used", unit: "short", text: "By namespace: devices that the kubelet has given, and how many the work would fill.", queries: []query{
			{"sum by (namespace) (orb8_gpu_allocated{" + ofHolders + "})", "{{namespace}} given"},
			{"sum by (namespace) (" + smMetric + "{" + ofHolders + "})", "{{namespace}} used"},
		}},
	}}
}

// legend names what an expression tells of.
func legend(expr string) string {
	if strings.Contains(expr, perDevice) {
		return aDevice
	}
	return aGPU
}

func gpuDevices() row {
	one := func(title, unit, text, expr string) panel {
		return panel{kind: lines, title: title, unit: unit, text: text, queries: []query{{expr, legend(expr)}}}
	}
	return row{"Devices", []panel{
		one("Utilisation", "percentunit", "Part of the time in which a kernel ran. MIG instances have none: see SMs.", ofGPUs("sum", utilMetric)),
		one("SMs", "percentunit", "Part of the SMs that had work.", ofDevices(smMetric)),
		one("Tensor cores", "percentunit", "Part of the time in which tensor cores worked.", ofDevices("orb8_gpu_tensor_ratio")),
		one("Memory's bandwidth", "percentunit", "Part of the memory's bandwidth that was used.", ofDevices("orb8_gpu_dram_ratio")),
		one("Memory", "percentunit", "Part of the device's memory that is used.", ofDevices(usedMetric)+" / max by ("+perDevice+") (orb8_gpu_memory_total_bytes{"+ofNodes+"})"),
		one("Power", "watt", "What the device draws; of an instance, what falls to it.", ofDevices(powerMetric)),
		one("Temperature", "celsius", "Temperature of the GPU.", ofGPUs("max", "orb8_gpu_temperature_celsius")),
		{kind: lines, title: "Clock of the SMs", unit: "hertz", text: "Lower than usual under load: it is throttled.", queries: []query{{`max by (` + perGPU + `) (orb8_gpu_clock_hertz{` + ofNodes + `,clock="sm"})`, aGPU}}},
		{kind: lines, title: "NVLink", unit: "Bps", text: "Bytes a second over all NVLinks of the device.", queries: []query{{rate("orb8_gpu_nvlink_bytes_total", ofNodes, perGPU+", direction"), aGPU + " {{direction}}"}}},
		{kind: lines, title: "PCIe", unit: "Bps", text: "Bytes a second over PCIe, when it was last measured.", queries: []query{{"max by (" + perGPU + ", direction) (orb8_gpu_pcie_bytes_per_second{" + ofNodes + "})", aGPU + " {{direction}}"}}},
	}}
}

func gpuHolders() row {
	one := func(title, unit, text, metric string) panel {
		return panel{kind: lines, title: title, unit: unit, text: text + " Without a name: what is no pod's, or nobody's that is known.", queries: []query{{held(metric), aHolder}}}
	}
	const ofEnergy = "orb8_gpu_energy_joules_total"
	return row{"Pods", []panel{
		one("Utilisation", "short", "1 is a whole GPU's time.", utilMetric),
		one("SMs", "short", "1 is all SMs of one device.", smMetric),
		one("Tensor cores", "short", "1 is one device's.", "orb8_gpu_tensor_ratio"),
		one("Memory", "bytes", "GPU memory that the pod has.", usedMetric),
		one("Power", "watt", "Power that falls to the pod.", powerMetric),
		{kind: lines, title: "NVLink", unit: "Bps", text: "Bytes a second over the NVLinks of the pod's GPUs.", queries: []query{{top(20, rate("orb8_gpu_nvlink_bytes_total", ofHolders, perHolder+", direction")), aHolder + " {{direction}}"}}},
		{kind: areas, title: "Power, by namespace", unit: "watt", text: "Power that falls to the namespace's pods.", queries: []query{{"sum by (namespace) (" + powerMetric + "{" + ofHolders + "})", "{{namespace}}"}}},
		{kind: lines, title: "Network, of namespaces with GPUs", unit: "Bps", text: "What the namespaces whose pods have GPUs send and receive by TCP/IP.", queries: []query{{
			rate(bytesMetric, ofNodes+`,namespace=~"$namespace"`, "namespace, direction") + " and on (namespace) sum by (namespace) (orb8_gpu_allocated{" + ofHolders + "})", "{{namespace}} {{direction}}",
		}}},
		{kind: table, title: "Energy, by namespace", unit: "watth", text: "Energy in the time that is shown.", queries: []query{{fmt.Sprintf("sum by (namespace) (increase(%s{%s}[$__range])) / 3600", ofEnergy, ofHolders), "energy"}}},
		{kind: table, title: "Pods", unit: "short", text: "Who has which device, and how it is given.", queries: []query{{"sum by (namespace, pod, container, node, gpu, mig, mode) (" + smMetric + "{" + ofHolders + "})", "SMs"}}},
	}}
}

func gpuHealth() row {
	return row{"Health of devices", []panel{
		{kind: table, title: "Xids", unit: "short", text: "Errors that the driver told in the time that is shown. The runbook of Orb8GPUXid says what they mean.", queries: []query{{most(50, xidMetric, ofNodes, "node, gpu, mig, uuid, namespace, pod, xid"), "Xids"}}},
		{kind: lines, title: "Throttled", unit: "percentunit", text: "Part of the time in which clocks were held down, by reason. power_cap is usual under full load; thermal and hardware… are not.", queries: []query{{rate("orb8_gpu_throttle_seconds_total", ofNodes, "node, gpu, reason"), aGPU + " {{reason}}"}}},
		{kind: lines, title: "Errors of memory", unit: "cps", text: "ECC errors. Uncorrected ones end the processes that are hit.", queries: []query{{rate("orb8_gpu_ecc_errors_total", ofNodes, "node, gpu, kind"), aGPU + " {{kind}}"}}},
		{kind: lines, title: "Replaced rows", unit: "short", text: "Rows of memory that wait for a reset to be replaced, and those that could not be: the GPU is to be exchanged.", queries: []query{
			{"sum by (node, gpu) (orb8_gpu_remapped_rows_pending{" + ofNodes + "})", aGPU + " pending"},
			{"sum by (node, gpu) (orb8_gpu_remapped_rows_failed{" + ofNodes + "})", aGPU + " failed"},
		}},
		{kind: lines, title: "Errors of links", unit: "cps", text: "NVLink: sent again, brought up again, received damaged. PCIe: sent again.", queries: []query{
			{rate("orb8_gpu_nvlink_errors_total", ofNodes, "node, gpu, kind"), aGPU + " NVLink {{kind}}"},
			{rate("orb8_gpu_pcie_replays_total", ofNodes, "node, gpu"), aGPU + " PCIe replay"},
		}},
	}}
}

func rdmaRow() row {
	const perPort, aPort = "node, device, port", "{{node}} {{device}}/{{port}}"
	const moved = "orb8_rdma_bytes_total"
	return row{"RDMA", []panel{
		{kind: lines, title: "Ports", unit: "Bps", text: "Bytes a second that passed the port by RDMA, which TCP/IP's counters do not have.", queries: []query{{rate(moved, ofNodes, perPort+", direction"), aPort + " {{direction}}"}}},
		{kind: lines, title: "Pods", unit: "Bps", text: "Of devices that one pod alone is known to use. Without a name: of all others.", queries: []query{{top(20, rate(moved, ofHolders, perHolder+", direction")), aHolder + " {{direction}}"}}},
		{kind: lines, title: "Use of the link", unit: "percentunit", text: "Of what the link carries in each direction.", queries: []query{{rate(moved, ofNodes, perPort+", direction") + " / on (" + perPort + ") group_left sum by (" + perPort + ") (orb8_rdma_link_rate_bytes_per_second{" + ofNodes + "})", aPort + " {{direction}}"}}},
		{kind: lines, title: "Congestion", unit: "cps", text: "np_… : this end has been told, or has seen, that the way to it is full. rp_cnp_handled: it was told to send less. out_of_sequence, packet_seq_err, local_ack_timeout_err: packets were lost.", queries: []query{{top(20, rate("orb8_rdma_congestion_total", ofNodes, perPort+", counter")), aPort + " {{counter}}"}}},
		{kind: lines, title: "Errors", unit: "cps", text: "Something is broken: a cable, a port, a peer that is gone.", queries: []query{{top(20, rate("orb8_rdma_errors_total", ofNodes, perPort+", counter")), aPort + " {{counter}}"}}},
		{kind: lines, title: "Links that are up", unit: "short", text: "1: the port is active.", queries: []query{{"sum by (" + perPort + ") (orb8_rdma_link_up{" + ofNodes + "})", aPort}}},
	}}
}

func gpuDriver() row {
	one := func(title, text, metric string) panel {
		return panel{kind: lines, width: 6, title: title, unit: "short", text: text, queries: []query{{"sum by (node) (" + metric + "{" + ofNodes + "})", aNode}}}
	}
	return row{"Driver", []panel{
		one("Driver open", "1: the agent has the driver open. 0: it cannot, or was asked to close it.", "orb8_gpu_driver_open"),
		one("Released", "1: the driver was closed because somebody asked for it, to reconfigure, reset or upgrade.", "orb8_gpu_driver_released"),
		one("Calls that hang", "Calls of the driver that have not come back.", "orb8_gpu_driver_hung_calls"),
		one("Kubelet", "1: the kubelet tells which pods it has given devices.", "orb8_gpu_pod_resources_up"),
	}}
}
