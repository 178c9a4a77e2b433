// SPDX-License-Identifier: Apache-2.0

package kube

import "sync"

// Bounds of what is remembered to be shared; beyond, everything is forgotten
// and remembered anew, which costs memory for a while and nothing else.
const (
	mostWords = 16384
	mostSets  = 16384
)

// words gives the same string for the same text, so that what a thousand pods
// have in common is kept once.
type words struct {
	mu  sync.Mutex
	all map[string]string
}

func (w *words) one(s string) string {
	if s == "" {
		return ""
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if known, is := w.all[s]; is {
		return known
	}
	if w.all == nil || len(w.all) >= mostWords {
		w.all = map[string]string{}
	}
	w.all[s] = s
	return s
}
