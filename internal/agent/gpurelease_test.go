// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"strings"
	"testing"
)

func TestReleaseReason(t *testing.T) {
	const (
		plugin = "nvidia.com/gpu.deploy.device-plugin"
		client = "nvidia.com/gpu.deploy.client"
		dcgm   = "nvidia.com/gpu.deploy.dcgm-exporter"
	)
	type labels = map[string]string
	for _, c := range []struct {
		labels labels
		want   string // in the reason; "" is open
	}{
		{nil, ""},
		{labels{"nvidia.com/gpu.present": "true", plugin: "true", client: "true", dcgm: "false"}, ""},
		{labels{labelGPU: "release"}, "label orb8.io/gpu=release"},
		{labels{labelGPU: "released"}, "label orb8.io/gpu=released"},
		{labels{labelGPU: "paused-for-driver-upgrade"}, "orb8.io/gpu=paused"},
		{labels{labelGPU: "open"}, ""},
		{labels{labelGPU: ""}, ""},
		{labels{labelDriverUpgrade: ""}, ""},
		{labels{labelDriverUpgrade: "upgrade-required"}, ""},
		{labels{labelDriverUpgrade: "cordon-required"}, ""},
		{labels{labelDriverUpgrade: "wait-for-jobs-required"}, ""},
		{labels{labelDriverUpgrade: "pod-deletion-required"}, "a driver upgrade: pods"},
		{labels{labelDriverUpgrade: "drain-required"}, "drained"},
		{labels{labelDriverUpgrade: "pod-restart-required"}, "replaced"},
		{labels{labelDriverUpgrade: "validation-required"}, ""},
		{labels{labelDriverUpgrade: "uncordon-required"}, ""},
		{labels{labelDriverUpgrade: "upgrade-done"}, ""},
		{labels{labelDriverUpgrade: "upgrade-failed"}, ""},
		{labels{labelDriverUpgrade: "upgrade-failed", plugin: "paused-for-driver-upgrade"}, plugin + "=paused-for-driver-upgrade"},
		{labels{labelMIG: "pending"}, "a change of MIG: GPUs are divided"},
		{labels{labelMIG: "rebooting"}, "starts again"},
		{labels{labelMIG: "success"}, ""},
		{labels{labelMIG: "failed"}, ""},
		{labels{labelMIG: "success", dcgm: "paused-for-mig-change"}, dcgm + "=paused-for-mig-change"},
		{labels{client: "paused-for-vgpu-change"}, client},
		{labels{labelDriverUpgrade: "upgrade-done", labelMIG: "success", plugin: "true", client: "true", labelGPU: "release"}, labelGPU},
	} {
		got := releaseReason(c.labels)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%v: %q, want %q", c.labels, got, c.want)
		}
		for key := range c.labels {
			if got != "" && strings.Contains(got, key+"=") && !slices.Contains(releaseLabels, key) {
				t.Errorf("%s is not among the labels that are kept", key)
			}
		}
	}
}
