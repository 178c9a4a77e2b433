// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"testing"
	"time"
)

// Eventually waits until cond holds and fails the test after five seconds: long
// enough for a busy machine, never waited for on a good day.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if cond() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
