#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs every fuzz target of the repository, as many at once as there are
# processors, each with one of them: run.sh [TIME], 20s each unless told. What
# it finds lands in the room's testdata/fuzz and is a test from then on.
set -euo pipefail
cd "$(dirname "$0")/../.."
export time=${1:-20s}
# Whatever the caller's settings are, the corpus and the objects are the same.
export GOFLAGS=-mod=readonly

targets=$(go test -list '^Fuzz' ./... | awk '/^Fuzz/ {t[n++] = $1} /^ok/ {for (i = 0; i < n; i++) print $2, t[i]; n = 0}')
[ -n "$targets" ] || { echo "no fuzz targets found"; exit 1; }
# Instrumented once for each room, not by two of its targets at the same time.
awk '!seen[$1]++ {print $1}' <<<"$targets" | while read -r room; do
	go test -run='^$' -fuzz='^None$' "$room" >/dev/null
done

one() {
	local said
	said=$(go test -run='^$' -fuzz="^$2\$" -fuzztime="$time" -parallel=1 "$1" </dev/null 2>&1) || {
		# Go's fuzzer may take the end of its own time for a failure
		# (go.dev/issue/75804); an input that fails is written down.
		if grep -q 'context deadline exceeded' <<<"$said" && ! grep -qE 'Failing input|panic|fatal error' <<<"$said"; then
			said+=$'\n   ended by its time, execs: not told'
		else
			printf -- '-- %s %s\n%s\n' "$1" "$2" "$said"
			return 255 # and no other begins
		fi
	}
	printf -- '-- %s %s\n%s\n' "$1" "$2" "$(grep -E 'execs:' <<<"$said" | tail -1)"
}
export -f one
xargs -P "$(nproc)" -L 1 bash -c 'one "$@"' one <<<"$targets"
echo "$(wc -l <<<"$targets") targets, $SECONDS s"
