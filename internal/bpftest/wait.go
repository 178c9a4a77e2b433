// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"testing"
	"time"
)

// Eventually waits until cond holds and fails the test after half a minute: long
// enough for the busiest machine, never waited for on a good day.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if cond() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
