// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/orb8/orb8/internal/event"
)

var me = &event.Identity{Class: event.ClassPod, Namespace: "ml", Pod: "trainer-0", PodUID: "uid-of-trainer-0"}

func podNamed(name string) *event.Identity {
	return &event.Identity{Class: event.ClassPod, Namespace: "ml", Pod: name, PodUID: "uid-of-" + name}
}

// connectionTo is one that the holder has opened.
func connectionTo(who *event.Identity, ip string, port uint16) *event.Flow {
	return &event.Flow{
		Conn: event.Conn{
			Local: event.IPFrom(netip.MustParseAddr("10.0.0.1")), Remote: event.IPFrom(netip.MustParseAddr(ip)),
			LocalPort: 40000, RemotePort: port, Protocol: event.TCP,
		},
		Local: me, Remote: who, OpenedBy: event.OpenerLocal, State: event.StateEstablished,
	}
}

// moves is a connection that moves so much in each second.
func (w *watcher) moves(f *event.Flow, tx, rx uint64) func() {
	return func() {
		moved := event.Traffic{TxBytes: tx, TxPackets: (tx + 999) / 1000, RxBytes: rx, RxPackets: (rx + 999) / 1000}
		f.Total.Add(moved)
		w.n.flow(f, &moved, f.State.Ended(), f.State == event.StateRefused || f.State == event.StateFailed)
	}
}

// fails is a connect that is refused.
func (w *watcher) fails(f *event.Flow) func() {
	return func() {
		again := *f
		again.State, again.Total = event.StateRefused, event.Traffic{TxBytes: 74, TxPackets: 1, RxBytes: 54, RxPackets: 1}
		w.n.flow(&again, &again.Total, true, true)
	}
}

// resends sends segments again, and nothing comes.
func (w *watcher) resends(f *event.Flow) func() {
	return func() {
		again := *f
		again.Health.Resent = 1
		moved := event.Traffic{TxBytes: 1514, TxPackets: 1}
		again.Total.Add(moved)
		w.n.flow(&again, &moved, false, false)
	}
}

func (w *watcher) asks(code event.RCode, name string) func() {
	return func() {
		l := &event.Lookup{Role: event.RoleClient, RCode: code, Name: name, Asked: w.at - 5*second}
		if code < event.RCodeUnreachable {
			l.Answered = w.at
		}
		w.n.lookup(l)
	}
}

const (
	mb = 1_000_000
	gb = 1000 * mb
)

var (
	next    = podNamed("trainer-1")
	before  = podNamed("trainer-7")
	nobody  = &event.Identity{Class: event.ClassExternal}
	monitor = podNamed("prometheus-0")
)

// Each has a second of its own while the GPUs work, which is done 60 times, and then
// one while they do not, done 40 times.
var causes = []struct {
	name         string
	works, after func(*watcher) []func()
	cause        event.GPUCause
	peer         *event.Identity
	says         string
}{
	{
		name:  "nothing",
		works: func(w *watcher) []func() { return []func(){w.moves(connectionTo(nobody, "192.0.2.1", 443), 100, 100)} },
		cause: event.CauseNothing, says: "nothing moves on its network",
	},
	{
		name:  "heartbeats",
		after: func(w *watcher) []func() { return []func(){w.moves(connectionTo(next, "10.0.1.1", 29500), 600, 400)} },
		cause: event.CauseNothing, says: "next to nothing moves on its network, 1.0 KB/s",
	},
	{
		name: "reads from NFS", after: func(w *watcher) []func() {
			return []func(){
				w.moves(connectionTo(nobody, "10.0.0.5", 2049), 2*mb, 1200*mb),
				w.moves(connectionTo(next, "10.0.1.1", 40001), mb, mb),
			}
		},
		cause: event.CauseStorage, peer: nobody, says: "reads 1.2 GB/s from 10.0.0.5 (nfs)",
	},
	{
		name: "writes to an object store", after: func(w *watcher) []func() {
			s3 := &event.Identity{Class: event.ClassExternal, FQDN: "bucket.s3.eu-west-1.amazonaws.com"}
			return []func(){w.moves(connectionTo(s3, "192.0.2.7", 443), 300*mb, mb)}
		},
		cause: event.CauseStorage, says: "writes 300.0 MB/s to bucket.s3.eu-west-1.amazonaws.com",
	},
	{
		name: "reads from several of a store", after: func(w *watcher) []func() {
			var all []func()
			for i := range 4 {
				osd := podNamed(fmt.Sprintf("rook-ceph-osd-%d", i))
				osd.Workload.Name = osd.Pod
				all = append(all, w.moves(connectionTo(osd, fmt.Sprintf("10.0.2.%d", i), 6801), 0, uint64(100-i)*mb))
			}
			return append(all, w.moves(connectionTo(next, "10.0.1.1", 40001), 100*mb, 100*mb))
		},
		cause: event.CauseStorage, says: "reads 100.0 MB/s from pod ml/rook-ceph-osd-0 (ceph), with all of its storage 394.0 MB/s",
	},
	{
		name: "most moves with a peer, not with storage", after: func(w *watcher) []func() {
			return []func(){
				w.moves(connectionTo(nobody, "10.0.0.5", 2049), 0, 2*mb),
				w.moves(connectionTo(next, "10.0.1.1", 40001), 3*mb, 30*mb),
			}
		},
		cause: event.CausePeer, peer: next, says: "exchanges data with pod ml/trainer-1: sends 3.0 MB/s, receives 30.0 MB/s",
	},
	{
		name: "the DNS, whoever is silent", works: func(w *watcher) []func() {
			return []func(){w.moves(connectionTo(next, "10.0.1.1", 40001), 100*mb, 100*mb), w.asks(0, "fine.ml.svc")}
		},
		after: func(w *watcher) []func() { return []func(){w.asks(event.RCodeTimeout, "minio.\x1b[2Jml.svc")} },
		cause: event.CauseDNS, says: "the DNS does not answer (",
	},
	{
		name:  "the DNS fails",
		after: func(w *watcher) []func() { return []func(){w.asks(2, "minio.ml.svc")} },
		cause: event.CauseDNS, says: "the DNS fails (",
	},
	{
		name: "the DNS answers others",
		after: func(w *watcher) []func() {
			return []func(){w.asks(2, "minio.ml.svc"), w.asks(3, "no.ml.svc")}
		},
		cause: event.CauseNothing, says: "nothing moves",
	},
	{
		name:  "connects fail",
		after: func(w *watcher) []func() { return []func(){w.fails(connectionTo(next, "10.0.1.1", 29500))} },
		cause: event.CausePeer, peer: next, says: "connects to pod ml/trainer-1 fail (",
	},
	{
		name: "one that never worked is not what is waited for",
		works: func(w *watcher) []func() {
			return []func(){w.moves(connectionTo(next, "10.0.1.1", 40001), 100*mb, 100*mb), w.fails(connectionTo(monitor, "10.0.3.1", 4317))}
		},
		after: func(w *watcher) []func() { return []func(){w.fails(connectionTo(monitor, "10.0.3.1", 4317))} },
		cause: event.CausePeer, peer: next, says: "waits for pod ml/trainer-1, which has sent nothing for",
	},
	{
		name: "one that worked is gone",
		works: func(w *watcher) []func() {
			return []func(){w.moves(connectionTo(next, "10.0.1.1", 40001), 100*mb, 100*mb), w.moves(connectionTo(before, "10.0.1.7", 40001), 200*mb, 200*mb)}
		},
		after: func(w *watcher) []func() { return []func(){w.resends(connectionTo(next, "10.0.1.1", 40001))} },
		cause: event.CausePeer, peer: next, says: "pod ml/trainer-1 does not answer (",
	},
	{
		name: "a ring of pods: who sends to it is waited for, not who it sends to",
		works: func(w *watcher) []func() {
			return []func(){w.moves(connectionTo(next, "10.0.1.1", 40001), gb, 10*mb), w.moves(connectionTo(before, "10.0.1.7", 40001), 10*mb, gb)}
		},
		cause: event.CausePeer, peer: before, says: "waits for pod ml/trainer-7, which has sent nothing for 31s",
	},
	{
		name: "heartbeats are silence",
		works: func(w *watcher) []func() {
			return []func(){w.moves(connectionTo(before, "10.0.1.7", 40001), 10*mb, gb)}
		},
		after: func(w *watcher) []func() { return []func(){w.moves(connectionTo(before, "10.0.1.7", 29500), 300, 200)} },
		cause: event.CausePeer, peer: before, says: "waits for pod ml/trainer-7, which has sent only 6.2 KB for 31s",
	},
	{
		name: "who asks, and storage, and the control plane are not waited for",
		works: func(w *watcher) []func() {
			asks := connectionTo(monitor, "10.0.3.1", 50000)
			asks.OpenedBy = event.OpenerRemote
			api := &event.Identity{Class: event.ClassAPIServer}
			return []func(){
				w.moves(asks, 100_000, 1000), w.moves(connectionTo(nobody, "10.0.0.5", 2049), 0, 100*mb),
				w.moves(connectionTo(api, "10.96.0.1", 443), 0, mb), w.moves(connectionTo(me, "10.0.0.1", 6000), mb, mb),
			}
		},
		cause: event.CauseNothing, says: "nothing moves",
	},
	{
		name: "somebody does not take what is sent",
		works: func(w *watcher) []func() {
			return []func(){w.moves(connectionTo(next, "10.0.1.1", 40001), gb, 10*mb), w.moves(connectionTo(before, "10.0.1.7", 40001), 10*mb, gb)}
		},
		after: func(w *watcher) []func() {
			f := connectionTo(next, "10.0.1.1", 40001)
			f.Health.ShutRx = true
			return []func(){w.moves(f, 66, 66), w.moves(connectionTo(next, "10.0.1.1", 29500), 400, 300)}
		},
		cause: event.CausePeer, peer: next, says: "waits for pod ml/trainer-1, which does not take what is sent to it",
	},
	{
		name: "it does not read itself",
		works: func(w *watcher) []func() {
			f := connectionTo(before, "10.0.1.7", 40001)
			f.Health.ShutTx = true
			return []func(){w.moves(f, 10*mb, gb)}
		},
		cause: event.CauseNothing, says: "nothing moves on its network; it does not read what pod ml/trainer-7 has sent",
	},
}

func TestCauses(t *testing.T) {
	for _, c := range causes {
		t.Run(c.name, func(t *testing.T) {
			w := newWatcher(1)
			if c.works != nil {
				w.each(60, c.works(w)...)
			}
			w.set(idles)
			var after []func()
			if c.after != nil {
				after = c.after(w)
			}
			for len(w.told) == 0 && w.at < 1_000_200*second {
				w.each(1, after...)
			}
			w.each(10, after...)
			if len(w.told) != 1 {
				t.Fatalf("%d told", len(w.told))
			}
			f := w.told[0]
			if f.Cause != c.cause || c.peer != nil && f.Peer != c.peer || (f.Peer != nil) != (c.cause == event.CausePeer || c.cause == event.CauseStorage) {
				t.Errorf("%v, %+v", f.Cause, f.Peer)
			}
			if _, said, _ := strings.Cut(f.Text, ": "); !strings.HasPrefix(said, c.says) || strings.ContainsRune(f.Text, 0x1b) {
				t.Errorf("%q, want %q", f.Text, c.says)
			}
		})
	}
}

// TestStragglerOfARing: trainer-2 of four stops in a step that the others have begun.
// Who sends to it finds its window shut, who gets data from it waits for it, and who
// is further away for who stands before; trainer-2 itself waits for nobody.
func TestStragglerOfARing(t *testing.T) {
	const pods = 4
	var who [pods]*event.Identity
	var at [pods]*watcher
	var out, in [pods]*event.Flow
	for i := range pods {
		who[i], at[i] = podNamed(fmt.Sprintf("trainer-%d", i)), newWatcher(8)
	}
	for i := range pods {
		out[i] = connectionTo(who[(i+1)%pods], fmt.Sprintf("10.0.1.%d", (i+1)%pods), 40001)
		in[i] = connectionTo(who[(i+pods-1)%pods], fmt.Sprintf("10.0.1.%d", (i+pods-1)%pods), 50001)
		in[i].OpenedBy = event.OpenerRemote
		store := at[i].moves(connectionTo(who[0], "10.0.1.0", 29500), 400, 300)
		work := []func(){at[i].moves(out[i], gb, 20*mb), at[i].moves(in[i], 20*mb, gb), store}
		at[i].each(60, work...)
		switch i {
		case 1:
			out[i].Health.ShutRx = true
			at[i].each(1, at[i].moves(out[i], 6*mb, 100_000), at[i].moves(in[i], mb, 50*mb), store)
		case 2:
			in[i].Health.ShutTx = true
			at[i].each(1, at[i].moves(in[i], 100_000, 6*mb), store)
		case 3:
			at[i].each(1, at[i].moves(out[i], 50*mb, mb), store)
		default:
			at[i].each(1, work...)
		}
		at[i].set(spin)
		if i == 2 {
			at[i].set(idles)
		}
		at[i].each(40, store)
	}
	for i, want := range []string{
		"8 GPUs busy-waiting for 30s: waits for pod ml/trainer-3, which has sent nothing for 31s",
		"8 GPUs busy-waiting for 30s: waits for pod ml/trainer-2, which does not take what is sent to it",
		"8 GPUs idle for 30s: next to nothing moves on its network, 700 B/s; it does not read what pod ml/trainer-1 has sent",
		"8 GPUs busy-waiting for 30s: waits for pod ml/trainer-2, which has sent nothing for 32s",
	} {
		if got := at[i].told[0].Text; got != want {
			t.Errorf("trainer-%d: %q, want %q", i, got, want)
		}
	}
}

func TestSilenceIsOfWhoFellSilentFirst(t *testing.T) {
	w := newWatcher(1)
	up, down, old := connectionTo(next, "10.0.1.1", 40001), connectionTo(before, "10.0.1.7", 40001), connectionTo(monitor, "10.0.1.9", 40001)
	w.each(60, w.moves(up, 100*mb, 100*mb), w.moves(down, 100*mb, 110*mb), w.moves(old, 0, 5*mb))
	w.each(3, w.moves(down, 0, 100*mb)) // a part of the tree has had its turn
	w.set(idles)
	w.each(40)
	if f := w.told[0]; f.Peer != next || f.Silent < 30*second {
		t.Errorf("%+v", f)
	}
}

// Heartbeats of who sent little do not make up for what another sent, however long
// that is ago.
func TestHeartbeatsAreNotAwaited(t *testing.T) {
	w := newWatcher(1)
	ring, little := connectionTo(next, "10.0.1.1", 40001), connectionTo(monitor, "10.0.1.9", 40001)
	w.each(60, w.moves(ring, 100*mb, 100*mb), w.moves(little, mb, mb))
	w.set(idles)
	w.each(24*3600, w.moves(little, 100, 100))
	if f := w.row.Findings; len(f) != 1 || f[0].Peer != next {
		t.Errorf("%+v", f[0])
	}
	if len(w.told) != 1 {
		t.Errorf("told %d times, the last %q", len(w.told), w.told[len(w.told)-1].Text)
	}
}

func TestClosedConnectionsAreNotAwaited(t *testing.T) {
	w := newWatcher(1)
	f := connectionTo(next, "10.0.1.1", 40001)
	g := connectionTo(next, "10.0.1.1", 40002)
	w.each(60, w.moves(f, 100*mb, 100*mb), w.moves(g, 1000, 1000))
	f.State = event.StateClosed
	w.moves(f, 100, 100)()
	w.each(1)
	if p := w.n.awaited(w.at); p == nil || p.open != 1 {
		t.Fatalf("%+v", p)
	}
	g.State = event.StateReset
	w.moves(g, 100, 100)()
	w.set(idles)
	w.each(35)
	if f := w.told[0]; f.Cause != event.CauseNothing {
		t.Errorf("%+v", f)
	}
	// One that is older than the agent is there as long as it is told of.
	h := connectionTo(before, "10.0.1.7", 40001)
	h.OpenedBy, h.Total = event.OpenerUnknown, event.Traffic{TxBytes: 5}
	w.each(2, w.moves(h, 100*mb, 100*mb))
	if p := w.n.awaited(w.at); p == nil || p.who != before {
		t.Errorf("%+v", p)
	}
}

func TestRDMA(t *testing.T) {
	w := newWatcher(1)
	w.set(spin)
	w.rdma = event.RDMAUse{Known: true, Moved: event.Traffic{TxBytes: 3 * gb, RxBytes: 2 * gb}}
	w.each(40, w.moves(connectionTo(next, "10.0.1.1", 40001), mb, mb))
	if f := w.told[0]; f.Cause != event.CauseRDMA || f.TxRate != 3*gb || f.RxRate != 2*gb || f.Peer != nil ||
		f.Text != "1 GPU busy-waiting for 30s: moves data by RDMA: sends 3.0 GB/s, receives 2.0 GB/s" {
		t.Errorf("%+v", f)
	}
}

func TestNetworkThatIsNotKnown(t *testing.T) {
	w := newWatcher(1)
	w.deaf = true
	w.set(idles)
	w.each(40)
	if f := w.told[0]; f.Cause != 0 || f.Text != "1 GPU idle for 30s: what its network does is not known" {
		t.Errorf("%+v", f)
	}
}

func TestTheNodesKernelReads(t *testing.T) {
	w := newWatcher(1)
	c := Config{}.filled()
	w.f.kernel = newNetwork(&c)
	nfs := connectionTo(nobody, "10.0.0.5", 2049)
	nfs.Local = &event.Identity{Class: event.KernelService("nfs")}
	reads := func() {
		moved := event.Traffic{RxBytes: gb, RxPackets: mb}
		w.f.kernel.flow(nfs, &moved, false, false)
		w.f.kernel.second(w.at + second)
	}
	w.set(idles)
	w.each(40, reads)
	if f := w.told[0]; f.Cause != event.CauseStorage || !strings.HasSuffix(f.Text, ": the node's kernel reads 1.0 GB/s from 10.0.0.5 (nfs), for whom is not known") {
		t.Errorf("%+v", f)
	}
}

// TestAnotherCauseIsToldWhenItLasts, and not before.
func TestAnotherCauseIsToldWhenItLasts(t *testing.T) {
	w := newWatcher(1)
	w.set(idles)
	reads := w.moves(connectionTo(nobody, "10.0.0.5", 2049), 0, 100*mb)
	w.each(40, reads)
	w.each(1, w.moves(connectionTo(next, "10.0.1.1", 40001), 0, 900*gb))
	w.each(60, reads)
	// That was much, and was in the window for long.
	if len(w.told) != 3 || w.told[1].Cause != event.CausePeer || w.told[2].Cause != event.CauseStorage {
		t.Fatalf("%d told", len(w.told))
	}
	w.told = nil
	w.each(100)
	if len(w.told) != 1 || w.told[0].Cause != event.CauseNothing || w.told[0].Ended != 0 || len(w.row.Findings) != 1 {
		t.Errorf("%d told, %+v", len(w.told), w.row.Findings)
	}
}

func TestPeersAreBounded(t *testing.T) {
	w := newWatcher(1)
	w.each(5, w.moves(connectionTo(next, "10.0.1.1", 40001), mb, mb))
	for i := range 10 * mostPeers {
		w.each(1, w.moves(connectionTo(nobody, netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}).String(), 443), 100, 100))
	}
	if len(w.n.peers) != mostPeers {
		t.Errorf("%d peers", len(w.n.peers))
	}
	if p := w.n.peers[peerOf(connectionTo(next, "10.0.1.1", 40001), useAny)]; p == nil {
		t.Error("who may be waited for is forgotten for others")
	}
}

func TestStorageIsKnownByName(t *testing.T) {
	for name, is := range map[string]bool{
		"s3.amazonaws.com": true, "b.s3.us-east-1.amazonaws.com": true, "s3-us-west-2.amazonaws.com": true, "b.s3express-use1-az4.us-east-1.amazonaws.com": true,
		"ec2.us-east-1.amazonaws.com": false, "sts.amazonaws.com": false, "storage.googleapis.com": true, "b.storage.googleapis.com": true,
		"notstorage.googleapis.com": false, "storage.us-east4.rep.googleapis.com": true, "a.blob.core.windows.net": true, "evilblob.core.windows.net": false,
		"x.r2.cloudflarestorage.com": true, "b.oss-cn-hangzhou.aliyuncs.com": true, "ecs.aliyuncs.com": false, "b.cos.ap-guangzhou.myqcloud.com": true,
		"s3.example.org": true, "minio.example.org": true, "huggingface.co": false, "s3": false, "": false, "cos.example.com": false,
		"axn.objectstorage.us-ashburn-1.oraclecloud.com": true, "S3.example.org": false,
	} {
		if isStoreName(name) != is {
			t.Errorf("%q: %v", name, !is)
		}
	}
	for _, c := range []struct {
		who  event.Identity
		port uint16
		role role
	}{
		{event.Identity{Class: event.ClassPod, PodUID: "a", Workload: event.Workload{Name: "minio-pool-0"}}, 9000, roleStorage},
		{event.Identity{Class: event.ClassPod, PodUID: "a", Service: "store/weka"}, 14000, roleStorage},
		{event.Identity{Class: event.ClassPod, PodUID: "a", Service: "ceph/trainer"}, 7000, rolePeer},
		{event.Identity{Class: event.ClassPod, PodUID: "a", Workload: event.Workload{Name: "swift-train"}}, 6801, rolePeer},
		{event.Identity{Class: event.ClassExternal}, 6801, roleStorage},
		{event.Identity{Class: event.ClassExternal}, 9000, rolePeer},
		{event.Identity{Class: event.ClassPod, PodUID: "a", Workload: event.Workload{Name: "coredns"}}, 53, roleDNS},
		{event.Identity{Class: event.KernelService("nfs")}, 1000, roleStorage},
		{event.Identity{Class: event.KernelService("vxlan")}, 1000, rolePeer},
		{event.Identity{Class: event.ClassAPIServer}, 443, roleAside},
	} {
		f := connectionTo(&c.who, "10.0.0.9", c.port)
		if r := roleOf(useOf(f), f); r != c.role {
			t.Errorf("%+v:%d is %d", c.who, c.port, r)
		}
	}
}

func TestNamesAreSafe(t *testing.T) {
	p := &peer{who: &event.Identity{FQDN: "a\x1b]0;b\u202e\xff\n.com"}}
	if got := p.name(); got != "a?]0;b???.com" {
		t.Errorf("%q", got)
	}
	if n := len(clean(strings.Repeat("é", 1000))); n > 301 {
		t.Errorf("%d bytes", n)
	}
}

// crowd is a network with so many peers.
func crowd(peers int) (*network, []*event.Flow) {
	c := Config{}.filled()
	n := newNetwork(&c)
	flows := make([]*event.Flow, peers)
	for i := range flows {
		flows[i] = connectionTo(podNamed(fmt.Sprintf("worker-%d-8c6b5d9f7-x2x%d", i, i)), fmt.Sprintf("10.1.0.%d", i), 40000)
		n.flow(flows[i], &event.Traffic{TxBytes: 1000, RxBytes: 1000}, false, false)
	}
	n.second(second)
	return n, flows
}

func TestNetworkFlowAllocatesNothing(t *testing.T) {
	n, flows := crowd(8)
	moved := event.Traffic{TxBytes: 1000, RxBytes: 1000}
	at := second
	if got := testing.AllocsPerRun(100, func() {
		for _, f := range flows {
			n.flow(f, &moved, false, false)
		}
		at += second
		n.second(at)
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

// TestStrangersAllocateNothing: whoever comes has the place of who went.
func TestStrangersAllocateNothing(t *testing.T) {
	n, _ := crowd(mostPeers)
	moved := event.Traffic{TxBytes: 1000, RxBytes: 1000}
	f := connectionTo(nobody, "192.0.2.1", 443)
	ip := uint16(0)
	if got := testing.AllocsPerRun(10_000, func() {
		ip++
		f.Conn.Remote[14], f.Conn.Remote[15] = byte(ip>>8), byte(ip)
		n.flow(f, &moved, false, false)
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func TestMemoryOf200Holders(t *testing.T) {
	for peers, most := range map[int]uint64{16: 2 << 20, mostPeers: 7 << 20} {
		flows := make([][]*event.Flow, 200)
		all := make([]*network, 200)
		for i := range all {
			_, flows[i] = crowd(peers)
		}
		var m runtime.MemStats
		heap := func() uint64 {
			runtime.GC()
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		begin := heap()
		c := Config{}.filled()
		for i := range all {
			all[i] = newNetwork(&c)
			for _, f := range flows[i] {
				all[i].flow(f, &f.Total, false, false)
			}
		}
		used := heap() - begin
		t.Logf("200 holders of %d peers: %d KiB", peers, used>>10)
		if used > most {
			t.Errorf("%d peers: %d bytes", peers, used)
		}
		runtime.KeepAlive(all)
		runtime.KeepAlive(flows)
	}
}

// BenchmarkNetworkFlow is of who has so many peers, in turn.
func BenchmarkNetworkFlow(b *testing.B) {
	for _, peers := range []int{8, mostPeers} {
		b.Run(fmt.Sprintf("of %d", peers), func(b *testing.B) {
			n, flows := crowd(peers)
			moved := event.Traffic{TxBytes: 1000, RxBytes: 1000}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				n.flow(flows[i], &moved, false, false)
				if i++; i == len(flows) {
					i = 0
				}
			}
		})
	}
}

// BenchmarkStranger is a connection of somebody for whom there is no room.
func BenchmarkStranger(b *testing.B) {
	n, _ := crowd(mostPeers)
	moved := event.Traffic{TxBytes: 1000, RxBytes: 1000}
	f := connectionTo(nobody, "192.0.2.1", 443)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		f.Conn.Remote[13], f.Conn.Remote[14], f.Conn.Remote[15] = byte(i>>16), byte(i>>8), byte(i)
		n.flow(f, &moved, false, false)
	}
}

// BenchmarkSecond is a round of a holder that is idle, with many peers.
func BenchmarkSecond(b *testing.B) {
	w := newWatcher(8)
	w.n, _ = crowd(mostPeers)
	w.set(idles)
	w.each(40)
	b.ReportAllocs()
	for b.Loop() {
		w.round()
		w.told = w.told[:0]
	}
}
