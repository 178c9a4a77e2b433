// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"fmt"
	"math"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/store"
)

// The original's clients are published: these tests speak its wire by field
// number and type, so that no change of the .proto can carry them along.

// raw is a message as bytes.
type raw struct{}

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func (raw) Name() string { return "proto" }

var _ encoding.CodecV2 = raw{}

// field is one field of a message: a number, or bytes.
type field struct {
	number uint64
	bytes  []byte
}

func (f field) String() string {
	if f.bytes != nil {
		return fmt.Sprintf("%q", f.bytes)
	}
	return fmt.Sprint(f.number)
}

// parse reads a message into its fields by number; only varints and bytes are
// on this wire.
func parse(t *testing.T, b []byte) map[protowire.Number][]field {
	t.Helper()
	out := map[protowire.Number][]field{}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatalf("not a message: %x", b)
		}
		b = b[n:]
		var f field
		switch typ {
		case protowire.VarintType:
			f.number, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		default:
			t.Fatalf("field %d has wire type %d", num, typ)
		}
		if n < 0 {
			t.Fatalf("field %d is cut", num)
		}
		out[num] = append(out[num], f)
		b = b[n:]
	}
	return out
}

func call(t *testing.T, conn *grpc.ClientConn, method string, req []byte) map[protowire.Number][]field {
	t.Helper()
	var resp []byte
	if err := conn.Invoke(t.Context(), "/orb8.v1.OrbitAgentService/"+method, &req, &resp, grpc.ForceCodecV2(raw{})); err != nil {
		t.Fatal(err)
	}
	return parse(t, resp)
}

// want compares fields with their printed form; "" means absent.
func want(t *testing.T, what string, got map[protowire.Number][]field, fields map[protowire.Number]string) {
	t.Helper()
	for num, w := range fields {
		s := ""
		if len(got[num]) > 0 {
			s = got[num][0].String()
		}
		if s != w {
			t.Errorf("%s: field %d is %s, want %s", what, num, s, w)
		}
	}
	for num := range got {
		if _, ok := fields[num]; !ok {
			t.Errorf("%s: unexpected field %d: %v", what, num, got[num])
		}
	}
}

func text(b []byte, num protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
}

func number(b []byte, num protowire.Number, n uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), n)
}

func TestOldWireQueryFlows(t *testing.T) {
	n := newFakeNode()
	n.flows.Begin()
	n.apply(delta(40000))
	conn := dial(t, n)
	rows := call(t, conn, "QueryFlows", nil)[1]
	if len(rows) != 2 {
		t.Fatalf("%d rows, want one for each direction", len(rows))
	}
	want(t, "ingress", parse(t, rows[0].bytes), map[protowire.Number]string{
		1: `"external"`, 2: `"unknown"`, 3: `"10.0.0.2"`, 4: `"10.0.0.1"`, 5: "443", 6: "40000",
		7: `"TCP"`, 8: `"ingress"`, 9: "2000", 10: "2", 11: "1000", 12: "2000",
	})
	want(t, "egress", parse(t, rows[1].bytes), map[protowire.Number]string{
		1: `"external"`, 2: `"unknown"`, 3: `"10.0.0.1"`, 4: `"10.0.0.2"`, 5: "40000", 6: "443",
		7: `"TCP"`, 8: `"egress"`, 9: "300", 10: "3", 11: "1000", 12: "2000",
	})
	for _, c := range []struct {
		name string
		req  []byte
		rows int
	}{
		{"namespace external", text(nil, 1, "external"), 2},
		{"one of two namespaces", text(text(nil, 1, "x"), 1, "external"), 2},
		{"another namespace", text(nil, 1, "default"), 0},
		{"pod unknown", text(nil, 2, "unknown"), 2},
		{"another pod", text(nil, 2, "web-0"), 0},
		{"limit", number(nil, 3, 1), 1},
		{"limit 0 is the default", number(nil, 3, 0), 2},
	} {
		if got := len(call(t, conn, "QueryFlows", c.req)[1]); got != c.rows {
			t.Errorf("%s: %d rows, want %d", c.name, got, c.rows)
		}
	}
}

func TestOldWireCutsLimits(t *testing.T) {
	n := newFakeNode()
	n.flows.Begin()
	for i := range 200 {
		n.apply(delta(uint16(i)))
	}
	conn := dial(t, n)
	if got := len(call(t, conn, "QueryFlows", number(nil, 3, 1_000_000))[1]); got != 50 {
		t.Errorf("%d rows, want the agent's maximum", got)
	}
	if n.asked.Limit != 50 {
		t.Errorf("the node was asked for %d", n.asked.Limit)
	}
}

func TestOldWireStreamEvents(t *testing.T) {
	n := newFakeNode()
	n.flows.Begin()
	conn := dial(t, n)
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/orb8.v1.OrbitAgentService/StreamEvents", grpc.ForceCodecV2(raw{}))
	if err != nil {
		t.Fatal(err)
	}
	req := text(nil, 1, "external")
	if err := stream.SendMsg(&req); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	<-n.followed
	f := n.apply(delta(40000))
	n.publish(store.Happened(1<<event.KindTraffic|1<<event.KindOpened), &event.Event{
		Flow:  *f,
		Delta: event.Traffic{TxBytes: math.MaxUint32 + 5, TxPackets: 1, RxBytes: 60, RxPackets: 1},
	}, 1)
	var egress, ingress []byte
	if err := stream.RecvMsg(&egress); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&ingress); err != nil {
		t.Fatal(err)
	}
	want(t, "egress", parse(t, egress), map[protowire.Number]string{
		1: `"external"`, 2: `"unknown"`, 3: `"10.0.0.1"`, 4: `"10.0.0.2"`, 5: "40000", 6: "443",
		7: `"TCP"`, 8: `"egress"`, 9: "4294967295", 10: "2000",
	})
	want(t, "ingress", parse(t, ingress), map[protowire.Number]string{
		1: `"external"`, 2: `"unknown"`, 3: `"10.0.0.2"`, 4: `"10.0.0.1"`, 5: "443", 6: "40000",
		7: `"TCP"`, 8: `"ingress"`, 9: "60", 10: "2000",
	})
}

func TestOldWireGetStatus(t *testing.T) {
	n := newFakeNode()
	n.flows.Begin()
	n.apply(delta(1))
	want(t, "status", call(t, dial(t, n), "GetStatus", nil), map[protowire.Number]string{
		1: `"n1"`, 2: `"v9"`, 4: `"m"`, 5: "1", 6: "5", 8: "1", 9: "90",
	})
}
