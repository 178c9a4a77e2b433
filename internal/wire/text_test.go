// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/store"
)

// hostile is a name that anybody may choose and protobuf refuses.
const hostile = "e\xffx"

// spoil sets every text in v, at any depth, to a hostile one, and gives how many
// there were: a field that is added later is tested, too.
func spoil(v reflect.Value) (n int) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(hostile)
		return 1
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				n += spoil(v.Field(i))
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return spoil(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		return spoil(v.Index(0))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		n = spoil(key) + spoil(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	}
	return n
}

// TestHostileTextsDoNotSpoilAnAnswer: one name that is not UTF-8 must not take
// the whole node's answer with it.
func TestHostileTextsDoNotSpoilAnAnswer(t *testing.T) {
	var (
		e    event.Event
		a    store.InterfaceAudit
		ns   event.Namespace
		loss event.Loss
		pod  Pod
	)
	for _, v := range []any{&e, &a, &ns, &loss, &pod} {
		n := spoil(reflect.ValueOf(v).Elem())
		if n < 2 {
			t.Fatalf("%T has %d texts", v, n)
		}
	}
	e.Flow.Conn.Protocol, e.Delta.TxPackets, e.Delta.RxPackets = event.TCP, 1, 1
	e.Flow.Total, e.Overflow = e.Delta, 1
	s := Source{Node: hostile, Interfaces: map[event.Iface]Place{{}: {Name: hostile, Namespace: hostile}}}

	messages := map[string]proto.Message{
		"flow": s.Flow(&e.Flow), "event": s.Event(&e), "interface": Interface(&a), "namespace": Namespace(&ns),
		"pod":             s.Pod(&pod),
		"losses":          &pb.Summary{Losses: Losses([]event.Loss{loss})},
		"notes":           &pb.NodeStatus{Notes: Texts([]string{"fine", hostile})},
		"original flows":  &pb.QueryFlowsResponse{Flows: OrbitFlows(&e.Flow)},
		"original events": OrbitEvents(&e)[0],
	}
	for name, m := range messages {
		if _, err := proto.Marshal(m); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	const marked = "e\uFFFDx"
	tap := messages["flow"].(*pb.FlowRecord).GetTap()
	if tap.GetInterface() != marked || tap.GetNamespace() != marked {
		t.Errorf("tap %v", tap)
	}
	if l := messages["flow"].(*pb.FlowRecord).GetLocal().GetLabels(); l[marked] != marked {
		t.Errorf("labels %v", l)
	}
	if i := messages["interface"].(*pb.InterfaceStatus); i.GetNamespace() != marked || i.GetTap().GetNamespace() != marked || i.GetNote() != marked {
		t.Errorf("interface %v", i)
	}
	if n := messages["notes"].(*pb.NodeStatus).GetNotes(); n[0] != "fine" || n[1] != marked {
		t.Errorf("notes %q", n)
	}
	if e.Flow.Local.Labels[hostile] != hostile {
		t.Error("the table's own labels were changed")
	}
}

// TestCleanTextsAreNotCopied: an answer may hold thousands.
func TestCleanTextsAreNotCopied(t *testing.T) {
	list, m := []string{"a", "日本", "\uFFFD"}, map[string]string{"a": "b"}
	if got := testing.AllocsPerRun(100, func() {
		Text(list[1])
		Texts(list)
		labels(m)
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}
