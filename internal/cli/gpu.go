// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/client"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/render"
)

const (
	// gpuRecords bounds an answer: what is known of devices comes with who holds them.
	gpuRecords = 100_000
	// gpuFindings is how many are told below a table.
	gpuFindings = 5
)

// gpuFlags are the question of orb8 gpu.
type gpuFlags struct {
	listFlags
	again againFlags
	by    choice
	gpus  []string
	// What does not change between two questions, and which of gpus no device is.
	known render.GPUs
	unmet []string
}

// gpuFilters is the flag about devices.
func gpuFilters(to *[]string) []filterFlag {
	return []filterFlag{{name: "gpu", help: "these devices, `GPU`: UUID, index on its node or PCI address", list: texts(to, anyName)}}
}

func (a *app) gpu() *cobra.Command {
	var f gpuFlags
	cmd := &cobra.Command{
		Use:   "gpu",
		Short: "Who holds which GPU, what it does, and what the network does meanwhile",
		Long: `gpu shows a row for each pod (or container, unit or process of the node) that holds
GPUs, whether the kubelet gave them to it or it only uses them. GPUS are indexes on the
node, of MIG instances with their size, as 1/1g.10gb; MODE is how it has them: exclusive,
time-sliced, mps or mig. SM, TENSOR and DRAM are means over its GPUs: SMs that had work
(of GPUs that do not tell it, the time in which a kernel ran), tensor cores at work, and
the bandwidth of the memory that is used. MEM and POWER are sums; OF is the memory of its
GPUs. TX/S and RX/S are what the pod moved by IP in the same second, RDMA_TX/S and
RDMA_RX/S what it moved by RDMA: shared, where the device has other users and does not
tell them apart. STATE is active, idle (a GPU of it does nothing), allocated (it has no
process on one), busy-waiting, hung or lost: why it does no work is said below the table,
and with -o wide in the row. The row (unattributed) is what nobody that is known has.

"-" is not known, and never 0. Before a number, ~ is estimated: of a GPU that several
share it is a part, by what the driver says of each process; ≥ is at least: a part of the
sum is not known.

With --by device a row is a GPU or a MIG instance, with --by rdma a port of an InfiniBand
or RoCE device: CONGESTION and ERRORS are what it counted in the last minute, GPUS the
GPUs that are nearest by PCI, NEAR how near (switch, root, node, far). --gpu of a GPU
means its instances, too; of a holder it shows these devices alone, and what is found of
any. Second by second: orb8 trace gpu. The driver: orb8 status`,
		Example: `  orb8 gpu -n training
  orb8 gpu --workload Job/llama --watch
  orb8 gpu --by device --node gpu-1 -o wide
  orb8 gpu --by rdma
  orb8 gpu -o json | jq -c 'select(.state == "idle") | [.holder.namespace, .holder.pod, .findings[].text]'`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.again.check(); err != nil {
				return err
			}
			f.unmet = f.gpus
			return a.ask(cmd.Context(), &f.listFlags, func(c client.Observer) error {
				return a.showPages(cmd.Context(), &f.again, &f.output, func(ctx context.Context) (*page, error) { return a.askGPUs(ctx, c, &f) })
			})
		},
	}
	f.by.allowed = []string{"holder", "device", "rdma"}
	f.by.add(cmd, "by", "", "a row for each holder, device, or port of an RDMA device")
	f.again.add(cmd)
	f.add(cmd, 100, "")
	addFilters(cmd, gpuFilters(&f.gpus), nil)
	a.completeGPUs(cmd)
	cmd.AddCommand(a.gpuDriver(true), a.gpuDriver(false))
	return cmd
}

func (f *gpuFlags) view() render.GPUView {
	return map[string]render.GPUView{"device": render.GPUDevices, "rdma": render.GPUPorts}[f.by.value]
}

// kind is what has a row.
func (f *gpuFlags) kind() orb8v1.GpuRecordKind {
	switch f.view() {
	case render.GPUDevices:
		return orb8v1.GpuRecordKind_GPU_RECORD_KIND_DEVICE
	case render.GPUPorts:
		return orb8v1.GpuRecordKind_GPU_RECORD_KIND_RDMA
	}
	return orb8v1.GpuRecordKind_GPU_RECORD_KIND_HOLDER
}

func (f *gpuFlags) request() *orb8v1.GpusRequest {
	return &orb8v1.GpusRequest{Include: &f.include, Exclude: &f.exclude, Gpus: f.gpus, Limit: f.limit, Kinds: []orb8v1.GpuRecordKind{f.kind()}}
}

// beside asks for the devices that a table tells of beside its rows, until some are
// known: their memory is told of holders, and their indexes of what is near.
func (f *gpuFlags) beside(ctx context.Context, c client.Observer) (err error) {
	if f.unmet, err = unmet(ctx, c, devices(&f.include, &f.exclude, 1), f.unmet); err != nil {
		return err
	}
	if len(f.known) > 0 || f.view() == render.GPUDevices || f.output.json() {
		return nil
	}
	f.known = render.GPUs{}
	for m, err := range c.Gpus(ctx, devices(&f.include, &f.exclude, gpuRecords)) {
		if err != nil {
			return err
		}
		if d := m.GetRecord().GetDevice(); d != nil {
			f.known[d.GetUuid()] = d
		}
	}
	return nil
}

// devices asks for those of the nodes that are meant, whoever has them.
func devices(include, exclude *orb8v1.EndFilter, limit uint32) *orb8v1.GpusRequest {
	return &orb8v1.GpusRequest{
		Include: &orb8v1.EndFilter{Nodes: include.GetNodes()}, Exclude: &orb8v1.EndFilter{Nodes: exclude.GetNodes()},
		Limit: limit, Kinds: []orb8v1.GpuRecordKind{orb8v1.GpuRecordKind_GPU_RECORD_KIND_DEVICE},
	}
}

// unmet finds which values of --gpu meet no device: who mistypes one must not take
// silence for an answer.
func unmet(ctx context.Context, c client.Observer, q *orb8v1.GpusRequest, gpus []string) (none []string, err error) {
	for _, gpu := range gpus {
		met := false
		q.Gpus = []string{gpu}
		for m, err := range c.Gpus(ctx, q) {
			if err != nil {
				return nil, err
			}
			met = met || m.GetRecord() != nil
		}
		if !met {
			none = append(none, gpu)
		}
	}
	return none, nil
}

func noSuchGPU(name string) string {
	return "no GPU is called " + strconv.Quote(name) + ": orb8 gpu --by device lists them"
}

// gpuAnswer is the records that have a row, and what the answer says of them.
type gpuAnswer struct {
	records []*orb8v1.GpuRecord
	summary *orb8v1.GpusSummary
}

func (a *app) askGPUs(ctx context.Context, c client.Observer, f *gpuFlags) (*page, error) {
	p, got := &page{answer: &answer{from: c}}, gpuAnswer{}
	for m, err := range c.Gpus(ctx, f.request()) {
		r := m.GetRecord()
		switch {
		case err != nil:
			return nil, err
		case r != nil && f.view().Has(r):
			got.records = append(got.records, r)
		case m.GetNode() != nil:
			p.hear(m.GetNode())
		case m.GetLoss().GetCount() > 0:
			p.warnings = append(p.warnings, render.Loss(m.GetLoss()))
		case m.GetSummary() != nil:
			got.summary = m.GetSummary()
			p.hearAll(got.summary.GetNodes(), got.summary.GetLosses())
		}
	}
	if err := p.check(got.summary != nil); err != nil {
		return nil, err
	}
	if err := f.beside(ctx, c); err != nil {
		return nil, err
	}
	p.first = f.about(&got)
	got.records = got.records[:min(len(got.records), int(f.limit))]
	p.shown = len(got.records)
	switch {
	case p.shown == 0 && f.view() != render.GPUPorts:
		p.hints = absences(ctx, c)
	case f.output.value == "table":
		p.hints = findings(got.records)
	}
	for _, gpu := range f.unmet {
		p.warnings = append(p.warnings, noSuchGPU(gpu))
	}
	return p, a.drawGPUs(p, f, &got)
}

func (a *app) drawGPUs(p *page, f *gpuFlags, got *gpuAnswer) error {
	table := render.NewGPUTable(a.style(&f.output, a.screen()), f.view(), f.known)
	for _, r := range got.records {
		if !f.output.json() {
			table.Add(r)
		} else if err := render.GPUJSON(&p.body, r); err != nil {
			return err
		}
	}
	if p.shown > 0 && !f.output.json() {
		return table.Flush(&p.body)
	}
	return nil
}

// about says in one line what the answer is.
func (f *gpuFlags) about(got *gpuAnswer) string {
	one := map[render.GPUView]string{render.GPUHolders: "holder of GPUs", render.GPUDevices: "device", render.GPUPorts: "RDMA device"}[f.view()]
	all := map[render.GPUView]string{render.GPUHolders: "holders of GPUs", render.GPUDevices: "devices", render.GPUPorts: "RDMA devices"}[f.view()]
	rows := uint64(len(got.records))
	missing := max(got.summary.GetMatched(), rows) - rows
	known := got.known()
	switch {
	case rows == 0 && given(podFilters(&f.include), podFilters(&f.exclude), gpuFilters(&f.gpus)):
		return "no " + all + " match"
	case rows == 0 && f.view() == render.GPUHolders:
		return "no GPUs are held"
	case rows == 0:
		return "no " + all + " known"
	case missing > 0 && uint64(f.limit) > rows:
		return fmt.Sprintf("%d %s shown, the most that the agents give: narrow the filter, or raise their ORB8_MAX_QUERY_LIMIT", known, all)
	case missing > 0 || rows > uint64(f.limit): // what nobody known has is a row, too
		return fmt.Sprintf("%d of %d rows shown; all: --limit %d", min(rows, uint64(f.limit)), rows+missing, rows+missing)
	case known == 1:
		return "1 " + one
	case known == 0:
		return "no " + all + " known"
	}
	return fmt.Sprintf("%d %s", known, all)
}

// known is how many records are not of what nobody known has.
func (g *gpuAnswer) known() (n int) {
	for _, r := range g.records {
		if r.GetHolder() == nil || r.GetHolder().GetHolder().GetClass() != string(event.ClassUnknown) {
			n++
		}
	}
	return n
}

// findings are told below the table, which has no room for sentences.
func findings(records []*orb8v1.GpuRecord) (lines []string) {
	more := 0
	for _, r := range records {
		for _, line := range render.GPUFindings(r) {
			if len(lines) == gpuFindings {
				more++
				continue
			}
			lines = append(lines, line)
		}
	}
	if more > 0 {
		lines = append(lines, fmt.Sprintf("%d more findings: -o wide", more))
	}
	return lines
}

// absences say why there is nothing, as far as the nodes know: each reason once,
// with how many nodes say so.
func absences(ctx context.Context, c client.Observer) (lines []string) {
	answer, err := c.Status(ctx)
	if err != nil {
		return nil
	}
	nodes := map[string][]string{}
	var reasons []string
	for _, n := range answer.GetNodes() {
		if reason := render.GPUAbsence(n); reason != "" {
			if len(nodes[reason]) == 0 {
				reasons = append(reasons, reason)
			}
			nodes[reason] = append(nodes[reason], n.GetNode())
		}
	}
	for i, reason := range reasons {
		if i == gpuFindings {
			return append(lines, fmt.Sprintf("%d more reasons: orb8 status", len(reasons)-i))
		}
		where := "node " + nodes[reason][0]
		if n := len(nodes[reason]); n > 1 {
			where = fmt.Sprintf("%d nodes", n)
		}
		lines = append(lines, where+": "+reason)
	}
	return lines
}
