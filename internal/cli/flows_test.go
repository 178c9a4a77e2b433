// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"testing"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// TestSortHasTheColumnsName, too.
func TestSortHasTheColumnsName(t *testing.T) {
	for word, want := range map[string]orb8v1.Sort{
		"last-seen": orb8v1.Sort_SORT_LAST, "last": orb8v1.Sort_SORT_LAST, "rtt": orb8v1.Sort_SORT_RTT,
	} {
		var f flowsFlags
		f.setSort()
		if err := f.sort.Set(word); err != nil || f.request().GetSort() != want {
			t.Errorf("--sort %s is %v, %v", word, f.request().GetSort(), err)
		}
	}
}
