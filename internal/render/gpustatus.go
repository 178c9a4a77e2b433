// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"io"
	"strings"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// gpu says what can be known of GPUs on a node; nothing where there is neither
// driver nor RDMA device.
func (b *block) gpu(s *orb8v1.GpuStatus) {
	if s == nil {
		return
	}
	text, t := gpuDriver(s)
	if n := s.GetRdmaDevices(); n > 0 {
		text += "; " + plural(uint64(n), "RDMA device")
	}
	b.field("GPUs", text, t)
	for _, call := range s.GetHung() {
		b.more("the driver does not come back: "+call, red)
	}
	for _, uuid := range s.GetLost() {
		b.more("fallen off the bus, or in need of a reset: "+uuid, red)
	}
	if s.GetPodResourcesProblem() != "" {
		b.more("who was given which GPU is not known: "+s.GetPodResourcesProblem(), yellow)
	}
	b.list("the driver lacks", "function", s.GetMissing())
	b.list("no device gives", "reading", s.GetNotGiven())
}

// list names all of what is not there where there is room, and else how many.
func (b *block) list(what, noun string, names []string) {
	switch {
	case len(names) == 0:
	case b.style.Wide:
		b.more(what+": "+strings.Join(names, ", "), plain)
	default:
		b.more(fmt.Sprintf("%s %s (-o wide)", what, plural(uint64(len(names)), noun)), plain)
	}
}

// gpuDriver says whether the driver is in use, and what there is.
func gpuDriver(s *orb8v1.GpuStatus) (string, tone) {
	switch {
	case s.GetReleased() != "":
		return "driver released: " + s.GetReleased(), yellow
	case !s.GetOpen() && s.GetProblem() != "":
		return "not seen: " + s.GetProblem(), red
	case !s.GetOpen():
		return "no driver", plain
	}
	text := plural(uint64(s.GetGpus()), "GPU")
	if n := s.GetInstances(); n > 0 {
		text += ", " + plural(uint64(n), "MIG instance")
	}
	if s.GetDriverVersion() != "" {
		text += ", driver " + s.GetDriverVersion()
	}
	if s.GetProblem() != "" {
		return text + ": " + s.GetProblem(), yellow
	}
	return text, plain
}

// GPUAbsence says why a node tells of no GPU, "" where it has some.
func GPUAbsence(n *orb8v1.NodeStatus) string {
	s := n.GetGpu()
	switch {
	case n.GetError() != "":
		return "it did not answer: " + n.GetError()
	case s == nil, !s.GetOpen() && s.GetProblem() == "" && s.GetReleased() == "":
		return "no NVIDIA driver"
	case s.GetReleased() != "":
		return "driver released: " + s.GetReleased()
	case !s.GetOpen():
		return s.GetProblem()
	case s.GetGpus() == 0:
		return "the driver knows of no GPU"
	}
	return ""
}

// gpuStatusJSON is the same as programs read it.
type gpuStatusJSON struct {
	Open                bool     `json:"open"`
	Problem             string   `json:"problem,omitempty"`
	Released            string   `json:"released,omitempty"`
	DriverVersion       string   `json:"driver_version,omitempty"`
	GPUs                uint32   `json:"gpus"`
	Instances           uint32   `json:"instances"`
	RDMADevices         uint32   `json:"rdma_devices"`
	Missing             []string `json:"missing"`
	NotGiven            []string `json:"not_given"`
	Hung                []string `json:"hung"`
	Lost                []string `json:"lost"`
	PodResourcesProblem string   `json:"pod_resources_problem,omitempty"`
}

func newGPUStatusJSON(s *orb8v1.GpuStatus) *gpuStatusJSON {
	if s == nil {
		return nil
	}
	return &gpuStatusJSON{
		s.GetOpen(), s.GetProblem(), s.GetReleased(), s.GetDriverVersion(), s.GetGpus(), s.GetInstances(), s.GetRdmaDevices(),
		append([]string{}, s.GetMissing()...), append([]string{}, s.GetNotGiven()...), append([]string{}, s.GetHung()...), append([]string{}, s.GetLost()...), s.GetPodResourcesProblem(),
	}
}

type gpuDriverJSON struct {
	Node  string `json:"node"`
	Open  bool   `json:"open"`
	Error string `json:"error,omitempty"`
}

// GPUDriverJSON writes how a node's driver is after it was to be another as one line.
func GPUDriverJSON(w io.Writer, s *orb8v1.GpuDriverState) error {
	return JSON(w, gpuDriverJSON{s.GetNode(), s.GetOpen(), s.GetError()})
}
