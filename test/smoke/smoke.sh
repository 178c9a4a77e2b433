#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The agent started as a user would, real packets, asked through the command
# line. Everything happens in two network namespaces of this script's own.
set -euo pipefail
bin=$(realpath "${1:-bin}")
a=orb8-smoke-a-$$ b=orb8-smoke-b-$$
dir=$(mktemp -d)
agent=
passed=0

cleanup() {
	[ -z "$agent" ] || kill "$agent" 2>/dev/null || true
	wait 2>/dev/null || true
	ip netns del "$a" 2>/dev/null || true
	ip netns del "$b" 2>/dev/null || true
	rm -rf "$dir"
}
trap cleanup EXIT

fail() {
	echo "FAIL: $1"
	echo "--- the agent's log"; cat "$dir/agent.log"
	exit 1
}
ok() { passed=$((passed + 1)); echo "ok $passed - $1"; }
# has WHAT PATTERN FILE: the file holds the pattern.
has() { grep -Eq "$2" "$3" || { cat "$3"; fail "$1"; }; ok "$1"; }

(cd "$(dirname "$0")/../.." && go build -o "$dir/oldwire" ./test/smoke/oldwire)

ip netns add "$a"; ip netns add "$b"
ip link add v0 netns "$a" type veth peer name v0 netns "$b"
for ns in "$a" "$b"; do ip -n "$ns" link set lo up; ip -n "$ns" link set v0 up; done
ip -n "$a" addr add 10.99.0.1/24 dev v0
ip -n "$b" addr add 10.99.0.2/24 dev v0

in_a() { ip netns exec "$a" "$@"; }
orb8() { in_a "$bin/orb8" --agent 127.0.0.1:9090 "$@"; }

# Not by in_a: $! must be the agent itself.
ip netns exec "$a" env ORB8_SOCKET="$dir/agent.sock" ORB8_STATE_DIR="$dir" "$bin/orb8-agent" 2>"$dir/agent.log" &
agent=$!
for _ in $(seq 50); do orb8 status >/dev/null 2>&1 && break; sleep 0.1; done

has "attachments are logged" 'Attached flow probe.*interface=v0' "$dir/agent.log"

orb8 trace network --duration 4s >"$dir/trace" 2>"$dir/trace.err" &
trace=$!
sleep 0.5
timeout 20 ip netns exec "$b" iperf3 -s -1 >/dev/null &
server=$!
sleep 0.5
in_a timeout 20 iperf3 -c 10.99.0.2 -t 1 -b 20M >/dev/null || fail "traffic"
wait $server || true

orb8 status >"$dir/status" || fail "status exits 0"
has "health is OK" '^Health: +OK' "$dir/status"
has "events were processed" '^Events processed: +[1-9]' "$dir/status"
orb8 flows >"$dir/flows" 2>/dev/null || fail "flows exits 0"
has "flows shows the connection" '10\.99\.0\.1.*10\.99\.0\.2:5201.*TCP' "$dir/flows"
orb8 flows -o json >"$dir/json" 2>/dev/null || fail "flows -o json exits 0"
has "flows counts its bytes" '"tx_bytes":[1-9][0-9]{5}' "$dir/json"
wait $trace || fail "trace network exits 0"
has "trace prints that it opened" 'opened .*10\.99\.0\.2:5201' "$dir/trace"
has "trace prints that it moved data" 'traffic .*10\.99\.0\.2:5201' "$dir/trace"
has "trace prints that it closed" 'closed .*10\.99\.0\.2:5201' "$dir/trace"

# A client of the original's service: namespace "external", pod "unknown".
in_a "$dir/oldwire" 127.0.0.1:9090 >"$dir/old" || fail "the original's QueryFlows answers"
has "the original's wire says external/unknown" '^external/unknown ' "$dir/old"

orb8 flows --namespace no-such-namespace >"$dir/none" 2>"$dir/none.err" || fail "a filter that matches nothing exits 0"
ok "a filter that matches nothing exits 0"
in_a "$bin/orb8" --agent unix://"$dir/agent.sock" flows >"$dir/unix" 2>/dev/null || fail "the unix socket answers"
has "the unix socket answers" '10\.99\.0\.2:5201' "$dir/unix"
in_a "$bin/orb8" --standalone status >"$dir/standalone" || fail "standalone answers"
has "standalone answers" '^Health: +OK' "$dir/standalone"

kill -TERM "$agent"
wait "$agent" || fail "the agent exits 0 on SIGTERM"
agent=
ok "the agent exits 0 on SIGTERM"
[ -z "$(ls "$dir"/*.sock "$dir"/clsact-* 2>/dev/null)" ] || fail "the agent leaves nothing behind"
ok "the agent leaves nothing behind"
echo "$passed passed, 0 failed"
