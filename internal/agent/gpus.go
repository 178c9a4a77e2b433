// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/accelerator"
	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/kubelet"
	"github.com/orb8/orb8/internal/netns"
	"github.com/orb8/orb8/internal/probe/gpu"
	"github.com/orb8/orb8/internal/probe/rdma"
	"github.com/orb8/orb8/internal/store"
)

// gpus is what is known of GPUs and RDMA devices. A nil one knows of none. Its own
// goroutine gathers, once a second; the pipeline's makes a view of what was
// gathered, and of what the network did in that second; anybody may read the view.
type gpus struct {
	cfg     *Config
	log     *slog.Logger
	sampler *gpu.Sampler
	rdma    *rdma.Sampler
	groups  *cgroup.Resolver // nil where groups are not known
	// nil outside of Kubernetes, and until there is a device.
	kubelet atomic.Pointer[kubelet.Watcher]
	inPods  bool
	letGo   letGo

	// The pipeline wants what there is in the next epoch.
	due chan struct{}

	// The gatherer's: what lies near which GPUs, and what devices do not give.
	nearest  map[string]near
	notGiven []string
	looked   time.Time
	// When the driver was last seen closed.
	opened time.Time
	// The processes of the second before.
	seen map[uint32]gpuProcess
	// There are some, and none is to be seen from here.
	blind atomic.Bool

	mu      sync.Mutex
	waiting *gathered

	// The pipeline's.
	tracker *accelerator.Tracker
	owners  owners

	view atomic.Pointer[event.GPUView]
}

// gathered is what was found in one second. The pipeline does not change it.
type gathered struct {
	gpus      *gpu.Snapshot
	xids      []event.GPUXid
	processes map[uint32]gpuProcess
	held      *kubelet.Snapshot
	rdma      []event.RDMADevice
	status    event.GPUStatus
	losses    []event.Loss
}

// gpuProcess is one with a context on a GPU, or with queue pairs.
type gpuProcess struct {
	group uint64
	name  string
	// It was not there any more.
	ended bool
}

// openGPUs begins to sample.
func (a *Agent) openGPUs() *gpus {
	if !a.cfg.GPU {
		return nil
	}
	g := &gpus{
		cfg: &a.cfg, log: a.cfg.Log, groups: a.who.groups, inPods: a.kube != nil,
		tracker: accelerator.New(accelerator.Config{Node: a.cfg.Node, Idle: a.cfg.GPUIdle, Grace: a.cfg.MetricsGrace}),
		nearest: map[string]near{}, due: make(chan struct{}, 1),
	}
	if a.kube == nil && g.groups != nil {
		if _, err := g.groups.Self(procDir); err != nil {
			a.problems = append(a.problems, fmt.Sprintf("whose the processes on GPUs are is not known: %v", err))
		}
	}
	g.view.Store(&event.GPUView{})
	settings := gpu.Settings{Sysfs: a.cfg.Sysfs, Every: max(time.Second, a.cfg.Epoch)}
	if a.kube != nil && a.kube.source != nil {
		g.letGo.wait()
		settings.Released = true
	}
	if a.cfg.NVML != "" {
		settings.Libraries = []string{a.cfg.NVML}
	}
	g.sampler = gpu.Start(settings)
	sampled := rdma.Settings{Sysfs: a.cfg.Sysfs, Every: max(time.Second, a.cfg.Epoch), Plain: !isSysfs(a.cfg.Sysfs)}
	if a.spaces != nil && a.cfg.Netns == netnsAll {
		sampled.Roots = roots(a.spaces.watcher)
	}
	g.rdma = rdma.Start(sampled)
	return g
}

const procDir = "/proc"

// isSysfs: a tree of plain files stands for it in tests.
func isSysfs(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == unix.SYSFS_MAGIC
}

// roots are processes by whose eyes the devices of other namespaces are seen.
func roots(w *netns.Watcher) func() []rdma.Root {
	return func() (list []rdma.Root) {
		w.Processes(func(inode, pid uint32) { list = append(list, rdma.Root{Netns: inode, PID: pid}) })
		return list
	}
}

// gatherAhead is how long before an epoch it is gathered what GPUs do in it: a
// driver answers within some ten milliseconds.
const gatherAhead = 250 * time.Millisecond

// Run gathers for each epoch until ctx ends.
func (g *gpus) Run(ctx context.Context) error {
	if g == nil {
		return nil
	}
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.due:
			wait.Reset(max(0, g.cfg.Epoch-gatherAhead))
		case <-wait.C:
			g.letGo.settle(ctx, g)
			g.gather(ctx)
		}
	}
}

// take is what was gathered since it was last asked, nil: nothing; and has it
// gathered anew.
func (g *gpus) take() *gathered {
	select {
	case g.due <- struct{}{}:
	default:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	w := g.waiting
	g.waiting = nil
	return w
}

// problems is what cannot be told, and why.
func (g *gpus) problems() []string {
	if g == nil {
		return nil
	}
	list := g.rdma.Latest().Problems
	if g.blind.Load() {
		list = append(slices.Clone(list), "processes on GPUs are not to be seen from the agent's pid namespace: whose they are is not known (hostPID)")
	}
	return list
}

func (g *gpus) Close() error {
	if g == nil {
		return nil
	}
	g.rdma.Close()
	err := g.sampler.Close()
	if k := g.kubelet.Load(); k != nil {
		err = errors.Join(err, k.Close())
	}
	return err
}

// moved tells what a connection did to who watches its local end.
func (g *gpus) moved(f *event.Flow, delta *event.Traffic, happened store.Happened) {
	if g == nil || !g.tracker.Watching() {
		return
	}
	const failed = 1<<event.KindRefused | 1<<event.KindFailed
	const ended = failed | 1<<event.KindClosed | 1<<event.KindReset
	g.tracker.Flow(f, delta, happened&ended != 0, happened&failed != 0)
}

// lookedUp tells what was asked of the DNS.
func (g *gpus) lookedUp(client *event.Identity, l *event.Lookup) {
	if g != nil && l.Role == event.RoleClient && g.tracker.Watching() {
		g.tracker.Lookup(client, l)
	}
}

// gpuKind is the kind of an event by what it holds.
func gpuKind(e *event.GPUEvent) event.Kind {
	switch {
	case e.Sample != nil:
		return event.KindGPUSample
	case e.Xid != nil:
		return event.KindGPUXid
	case e.Finding != nil:
		return event.KindGPUFinding
	}
	return event.KindGPUThrottle
}

// devices makes a view of what was gathered: the epoch's connections have been
// told.
func (p *pipeline) devices() {
	g := p.gpus
	if g == nil {
		return
	}
	got := g.take()
	if got == nil {
		return
	}
	g.letGo.heed(p.cluster, p.cfg.Node)
	round := accelerator.Round{
		At: got.gpus.At, GPUs: got.gpus.GPUs, Samples: got.gpus.Samples, Xids: got.xids,
		Held: g.owners.held(p, got.held), RDMA: got.rdma, Netns: p.podOf,
		Process: func(pid uint32) (*event.Identity, string) { return p.onGPU(got, pid) },
		Status:  got.status, Losses: got.losses,
	}
	if round.At == 0 { // there is no GPU, but there may be RDMA
		round.At = time.Now().UnixNano()
	}
	view, events := g.tracker.Round(&round)
	g.view.Store(view)
	for i := range events {
		e := &events[i]
		k := gpuKind(e)
		if p.feed.Wanted(store.Happened(1 << k)) {
			p.feed.PublishGPU(k, gpuTime(e, view.At), e)
		}
	}
	p.feed.Flush()
}

// gpuTime is when something happened.
func gpuTime(e *event.GPUEvent, at int64) int64 {
	if e.Xid != nil && e.Xid.At != 0 {
		return e.Xid.At
	}
	return at
}

// onGPU is who a process is, and in which container of a pod.
func (p *pipeline) onGPU(got *gathered, pid uint32) (*event.Identity, string) {
	one, ok := got.processes[pid]
	if !ok {
		return nil, ""
	}
	id := p.who.Process(one.group, pid, one.name)
	if id == nil {
		return nil, ""
	}
	return p.who.Party(id), id.Container
}

// podOf is the pod whose namespace it is; nil where that is not known.
func (p *pipeline) podOf(inode uint32) *event.Identity {
	if p.boxes == nil || p.cluster == nil {
		return nil
	}
	uid, ok := p.boxes.Pod(inode)
	if !ok {
		return nil
	}
	return p.cluster.Identity(uid)
}

// owners are the pods of this node by their names, which is all that the kubelet
// tells. It is the pipeline's.
type owners struct {
	pods map[string]*event.Identity
	// As the kubelet names them, where the cluster has not told of them.
	untold map[string]*event.Identity
}

// held is what the kubelet has given, with whose it is now: a name may be that of
// another pod a second later.
func (o *owners) held(p *pipeline, s *kubelet.Snapshot) []accelerator.Held {
	if s == nil || len(s.Holdings) == 0 {
		o.pods, o.untold = nil, nil
		return nil
	}
	before := o.untold
	o.pods, o.untold = map[string]*event.Identity{}, map[string]*event.Identity{}
	if p.cluster != nil {
		p.cluster.Pods(func(pod *cluster.Pod, gone int64) bool {
			if pod.Node == p.cfg.Node && gone == 0 {
				o.pods[pod.Namespace+"/"+pod.Name] = p.cluster.Identity(pod.UID)
			}
			return true
		})
	}
	list := make([]accelerator.Held, 0, len(s.Holdings))
	for i := range s.Holdings {
		h := &s.Holdings[i]
		one := accelerator.Held{Who: o.who(p.cfg.Node, h, before), Container: h.Container, Resource: h.Resource, ID: h.ID}
		if h.Claim != nil {
			one.DRADriver, one.DRADevice = h.Claim.Driver, h.Claim.Device
		}
		list = append(list, one)
	}
	return list
}

// who is the same as before, where the cluster has not told of it yet.
func (o *owners) who(node string, h *kubelet.Holding, before map[string]*event.Identity) *event.Identity {
	name := h.Namespace + "/" + h.Pod
	if id := o.pods[name]; id != nil {
		return id
	}
	if o.untold[name] == nil {
		o.untold[name] = before[name]
	}
	if o.untold[name] == nil {
		o.untold[name] = &event.Identity{Class: event.ClassPod, Namespace: h.Namespace, Pod: h.Pod, Node: node}
	}
	return o.untold[name]
}
