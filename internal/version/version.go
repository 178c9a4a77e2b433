// SPDX-License-Identifier: Apache-2.0

// Package version says which orb8 this is.
package version

import "runtime/debug"

// release is set when a release is built (-ldflags -X); it is never written to
// by the program.
var release = "0.1.0-dev"

// String gives the release, and the commit it was built from where Go knows it.
func String() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return release
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return release + "+" + s.Value[:12]
		}
	}
	return release
}
