// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"encoding/json"
	"testing"
)

// Whatever answers in the place of an API server: each node has one agent with
// a name, or none.
func FuzzPodList(f *testing.F) {
	for _, s := range []string{
		`{"items":[]}`,
		`{"items":[{"metadata":{"name":"a"},"spec":{"nodeName":"n"},"status":{"conditions":[{"type":"Ready","status":"True"}]}},{"metadata":{"name":"b"},"spec":{"nodeName":"n"}}]}`,
		`{"items":[{"metadata":{"name":"a","deletionTimestamp":"2026-03-04T12:00:00Z"},"status":{"containerStatuses":[{"state":{"waiting":{"reason":"x"}}}]}}]}`,
		`{"items":[{"status":{"conditions":[{"type":"PodScheduled","status":"False","message":"no room"}]}}],"metadata":{"continue":"x"}}`,
		`[]`, `{"items":[{"metadata":{"creationTimestamp":"never"}}]}`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var list podList
		if json.Unmarshal(data, &list) != nil {
			return
		}
		found := fleet{}
		found.add(list.Items)
		found.add(list.Items)
		agents := found.agents("ns")
		if len(agents) > len(list.Items) || len(agents) == 0 && len(list.Items) > 0 {
			t.Errorf("%d agents of %d pods", len(agents), len(list.Items))
		}
		for i, a := range agents {
			if a.Node == "" || i > 0 && agents[i-1].Node >= a.Node {
				t.Errorf("agent %d is on node %q", i, a.Node)
			}
		}
	})
}
