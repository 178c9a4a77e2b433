// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"strings"
)

// labelGPU is the label of a node by which a user has its GPUs let go; the others
// are those of NVIDIA's GPU operator.
const (
	labelGPU           = "orb8.io/gpu"
	labelDriverUpgrade = "nvidia.com/gpu-driver-upgrade-state"
	labelMIG           = "nvidia.com/mig.config.state"
)

// operandLabels say of programs that use the driver, and of any such from operator
// 26.7 on (client), whether they may. One that is switched off is never paused, so
// that one label would not do.
var operandLabels = []string{
	"nvidia.com/gpu.deploy.client",
	"nvidia.com/gpu.deploy.device-plugin",
	"nvidia.com/gpu.deploy.dcgm-exporter",
	"nvidia.com/gpu.deploy.dcgm",
}

// releaseLabels are the keys of the own node's labels that releaseReason reads.
var releaseLabels = append([]string{labelGPU, labelDriverUpgrade, labelMIG}, operandLabels...)

// nodeLabels are the keys of the own node's labels that are read.
func (c *Config) nodeLabels() []string {
	if !c.GPU {
		return nil
	}
	return releaseLabels
}

// upgradeReasons are the states of a driver's upgrade in which nobody may hold it.
// Before, while pods' jobs are waited for, which may take days, nothing is done to
// the driver; afterwards the new one is there.
var upgradeReasons = map[string]string{
	"pod-deletion-required": "pods that have GPUs are deleted first",
	"drain-required":        "the node is drained first",
	"pod-restart-required":  "the driver is replaced",
}

// migReasons are the states of a new division of GPUs in which nobody may hold the
// driver: success and failed are its ends.
var migReasons = map[string]string{
	"pending":   "GPUs are divided anew",
	"rebooting": "the node starts again for it",
}

// releaseReason tells why the driver is to be let go, by the own node's labels; ""
// where it may be used.
func releaseReason(labels map[string]string) string {
	if value := labels[labelGPU]; value == "release" || value == "released" || paused(value) {
		return fmt.Sprintf("the node's label %s=%s", labelGPU, value)
	}
	if what := upgradeReasons[labels[labelDriverUpgrade]]; what != "" {
		return fmt.Sprintf("a driver upgrade: %s (the node's label %s=%s)", what, labelDriverUpgrade, labels[labelDriverUpgrade])
	}
	if what := migReasons[labels[labelMIG]]; what != "" {
		return fmt.Sprintf("a change of MIG: %s (the node's label %s=%s)", what, labelMIG, labels[labelMIG])
	}
	for _, key := range operandLabels {
		if value := labels[key]; paused(value) {
			return fmt.Sprintf("the GPU operator pauses what uses the driver (the node's label %s=%s)", key, value)
		}
	}
	return ""
}

// paused: the operator says what for, as in paused-for-driver-upgrade.
func paused(value string) bool { return value == "paused" || strings.HasPrefix(value, "paused-for-") }
