// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"testing"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// A filter's value is refused, or is the same when it is read back as it is shown.
func FuzzFilterFlags(f *testing.F) {
	for _, s := range []string{"", "a,b", "a, a ,b", "TCP,17,icmpv6", "256", "80,65535", "-1", "10.1.2.3,fd00::/64", "10.1.2.3/33", "fe80::1%eth0", "::ffff:10.0.0.1", "Egress", ","} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var first, again orb8v1.Filter
		to := filters(&again)
		for i, flag := range filters(&first) {
			if flag.list.Set(s) != nil {
				continue
			}
			shown := flag.list.String()
			if err := to[i].list.Set(shown); err != nil || to[i].list.String() != shown {
				t.Errorf("--%s %q is shown as %q, then %q: %v", flag.name, s, shown, to[i].list.String(), err)
			}
		}
	})
}
