// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	collog "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/proto"

	"github.com/orb8/orb8/internal/event"
)

// decoded is a record as the official messages have it.
func decoded(t testing.TB, r *record) (*logs.LogRecord, *logs.ResourceLogs) {
	t.Helper()
	s := scribe{}
	s.write(r)
	s.write(r)
	e := newEnvelope(resource.NewWithAttributes("https://schema", attribute.String("service.name", "orb8-agent"), attribute.Int("n", 7)), "1.2.3")
	var req collog.ExportLogsServiceRequest
	if err := proto.Unmarshal(e.request(nil, s.all), &req); err != nil {
		t.Fatal(err)
	}
	rl := req.ResourceLogs[0]
	if len(req.ResourceLogs) != 1 || len(rl.ScopeLogs) != 1 || len(rl.ScopeLogs[0].LogRecords) != 2 {
		t.Fatalf("%v", &req)
	}
	if unknown := req.ProtoReflect().GetUnknown(); len(unknown) > 0 {
		t.Errorf("unknown fields: %x", unknown)
	}
	return rl.ScopeLogs[0].LogRecords[0], rl
}

// attributes as text, numbers included.
func attributes(rec *logs.LogRecord) map[string]string {
	all := map[string]string{}
	for _, kv := range rec.Attributes {
		if _, twice := all[kv.Key]; twice {
			all[kv.Key] = "twice"
			continue
		}
		v := kv.Value.String()
		_, v, _ = strings.Cut(v, ":")
		all[kv.Key] = strings.Trim(v, `"`)
	}
	return all
}

func TestAFlowIsWrittenInFull(t *testing.T) {
	e := closed(40000)
	e.Flow.OpenedBy = event.OpenerRemote
	e.Flow.TLS = &event.Hello{ServerName: "pay.example"}
	rec, rl := decoded(t, &record{why: "closed", flow: e.Flow, moved: e.Flow.Total, since: e.Time - 15e8, at: e.Time})
	want := map[string]string{
		"network.transport": "tcp", "network.type": "ipv4",
		"source.address": "10.244.3.9", "source.port": "8080", "destination.address": "10.244.1.17", "destination.port": "40000",
		"orb8.connection.id": fmt.Sprintf("%016x", e.Flow.Conn.ID()), "orb8.class": "pod",
		"k8s.namespace.name": "shop", "k8s.pod.name": localPod.Pod, "k8s.pod.uid": localPod.PodUID, "k8s.container.name": "cart",
		"k8s.deployment.name": "cart", "orb8.workload.kind": "Deployment", "orb8.workload.name": "cart",
		"orb8.process.name": "cart", "process.pid": "4242",
		"orb8.peer.class": "pod", "orb8.peer.namespace": "shop", "orb8.peer.pod": remotePod.Pod, "orb8.peer.node": "node-b",
		"orb8.peer.workload.kind": "Deployment", "orb8.peer.workload.name": "payment", "orb8.peer.service": "shop/payment",
		"orb8.flow.event": "closed", "orb8.flow.state": "closed", "orb8.flow.opened_by": "remote", "orb8.flow.duration": "1.5",
		"orb8.flow.transmit.bytes": "4711", "orb8.flow.transmit.packets": "12", "orb8.flow.receive.bytes": "123456", "orb8.flow.receive.packets": "99",
		"orb8.tcp.rtt": "0.000321", "orb8.tcp.retransmits": "1", "orb8.tls.server_name": "pay.example",
	}
	if got := attributes(rec); !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if rec.TimeUnixNano != uint64(e.Time) || rec.ObservedTimeUnixNano < uint64(e.Time) || rec.EventName != eventFlow || rec.SeverityNumber != logs.SeverityNumber_SEVERITY_NUMBER_INFO {
		t.Errorf("%v", rec)
	}
	if sc := rl.ScopeLogs[0].Scope; sc.Name != scope || sc.Version != "1.2.3" || rl.SchemaUrl != "https://schema" || len(rl.Resource.Attributes) != 2 {
		t.Errorf("%v %v %v", sc, rl.SchemaUrl, rl.Resource)
	}
}

// Behind the host's translation the ends are the socket's, and the ID is that of
// the wire.
func TestATranslatedConnection(t *testing.T) {
	e := closed(40000)
	e.Flow.NAT = &event.Translation{Local: e.Flow.Conn.Local, LocalPort: 40000, Remote: event.IPFrom(netip.MustParseAddr("10.96.0.1")), RemotePort: 443, OfSocket: true}
	rec, _ := decoded(t, &record{flow: e.Flow})
	a := attributes(rec)
	if a["destination.address"] != "10.96.0.1" || a["destination.port"] != "443" || a["orb8.connection.id"] != fmt.Sprintf("%016x", e.Flow.Conn.ID()) {
		t.Errorf("%v", a)
	}
}

func TestADropIsWritten(t *testing.T) {
	d := &event.Drop{Reason: "NO_SOCKET", Location: "tcp_v4_rcv+0x1", Folded: true, Amount: event.Counter{Bytes: 120, Packets: 2}}
	rec, _ := decoded(t, &record{drop: d, at: 5})
	want := map[string]string{
		"network.transport": "0", "orb8.drop.reason": "NO_SOCKET", "orb8.drop.location": "tcp_v4_rcv+0x1",
		"orb8.drop.bytes": "120", "orb8.drop.packets": "2", "orb8.drop.folded": "true",
	}
	if got := attributes(rec); !maps.Equal(got, want) || rec.SeverityText != "WARN" || rec.EventName != eventDrop {
		t.Errorf("%v %v", got, rec)
	}
}

func TestALookupIsWritten(t *testing.T) {
	e := lookup("a.example")
	e.Lookup.Answers = []event.Answer{{Type: 5, Target: "b.example"}, {Type: 1, Addr: netip.MustParseAddr("192.0.2.1")}}
	e.Lookup.SearchMisses = 3
	rec, _ := decoded(t, &record{flow: e.Flow, lookup: e.Lookup, at: e.Time})
	for _, kv := range rec.Attributes {
		if kv.Key == "dns.answers" {
			if vs := kv.Value.GetArrayValue().GetValues(); len(vs) != 2 || vs[0].GetStringValue() != "b.example" || vs[1].GetStringValue() != "192.0.2.1" {
				t.Errorf("%v", vs)
			}
		}
	}
	a := attributes(rec)
	if a["orb8.dns.lookup.duration"] != "0.002" || a["orb8.dns.search_misses"] != "3" || a["orb8.dns.tries"] != "1" || a["orb8.dns.role"] != "client" {
		t.Errorf("%v", a)
	}
	e.Lookup.RCode, e.Lookup.Answered = event.RCodeTimeout, 0
	rec, _ = decoded(t, &record{flow: e.Flow, lookup: e.Lookup, at: e.Time})
	if a := attributes(rec); rec.SeverityText != "WARN" || a["orb8.dns.rcode"] != "TIMEOUT" || a["orb8.dns.lookup.duration"] != "" {
		t.Errorf("%v", a)
	}
}

// Whatever names and numbers are, the official messages can be read, with them.
func FuzzWrite(f *testing.F) {
	f.Add("a.example", "pod", uint64(1), int64(5), uint16(80))
	f.Add("\xff\xfe", strings.Repeat("x", 200), ^uint64(0), int64(-1), uint16(0))
	f.Fuzz(func(t *testing.T, name, pod string, bytes uint64, at int64, port uint16) {
		e := closed(int(port))
		id := *localPod
		id.Pod, id.FQDN = pod, name
		e.Flow.Local, e.Flow.Remote = &id, &id
		rec, _ := decoded(t, &record{flow: e.Flow, at: at, moved: event.Traffic{TxBytes: bytes}})
		if got := value(rec, "k8s.pod.name"); got != strings.ToValidUTF8(pod, "\ufffd") {
			t.Errorf("%q became %q", pod, got)
		}
		e = lookup(name)
		e.Lookup.Answers = []event.Answer{{Target: pod}, {Target: name}}
		rec, _ = decoded(t, &record{flow: e.Flow, lookup: e.Lookup, at: at})
		if got := value(rec, "dns.question.name"); got != strings.ToValidUTF8(name, "\ufffd") {
			t.Errorf("%q became %q", name, got)
		}
	})
}

func TestWritingAllocatesNothing(t *testing.T) {
	s := scribe{}
	e := closed(1)
	r := record{why: "closed", flow: e.Flow, moved: e.Delta, at: time.Now().UnixNano()}
	if n := testing.AllocsPerRun(100, func() { s.all = s.all[:0]; s.write(&r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
