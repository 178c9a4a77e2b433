#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs every fuzz target of the repository, one after the other: run.sh [TIME],
# 20s each unless told. The fuzzer takes one target at a time. What it finds
# lands in the room's testdata/fuzz and is a test from then on.
set -euo pipefail
cd "$(dirname "$0")/../.."
time=${1:-20s}
# Whatever the caller's settings are, the corpus and the objects are the same.
export GOFLAGS=-mod=readonly

targets=$(go test -list '^Fuzz' ./... | awk '/^Fuzz/ {t[n++] = $1} /^ok/ {for (i = 0; i < n; i++) print $2, t[i]; n = 0}')
[ -n "$targets" ] || { echo "no fuzz targets found"; exit 1; }
said=$(mktemp)
trap 'rm -f "$said"' EXIT
while read -r room target; do
	echo "-- $room $target"
	go test -run='^$' -fuzz="^$target\$" -fuzztime="$time" -parallel=2 "$room" </dev/null >"$said" 2>&1 || {
		# Go's fuzzer may take the end of its own time for a failure
		# (go.dev/issue/75804); an input that fails is written down.
		if grep -q 'context deadline exceeded' "$said" && ! grep -qE 'Failing input|panic|fatal error' "$said"; then
			echo "   ended by its time"
		else
			cat "$said"
			exit 1
		fi
	}
	grep -E 'execs:' "$said" | tail -1
done <<<"$targets"
echo "$(wc -l <<<"$targets") targets, $SECONDS s"
