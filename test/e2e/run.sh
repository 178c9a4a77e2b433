#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The matrix on a real Kubernetes, as root. run.sh [full|core|ci|all]
#   full  all rows, in the configuration that the environment names
#   core  the rows that each configuration must pass, in that one
#   ci    full in the usual configuration, core in the others
#   all   full in each configuration
# The cluster has a prefix of its own (P=e2e), stands beside others, and is taken
# down at the end, however that comes. KEEP_UP=1 leaves it up.
set -euo pipefail
cd "$(dirname "$0")/../.."
cluster=test/e2e/cluster
export P=${P:-e2e}
what=${1:-full}

# Every value of the four settings meets every value of each other one in five
# configurations, the first of which is the usual one.
configurations=(
	"CGMODE=hybrid PROXY_MODE=nftables CNI_TYPE=ptp NODE_PIDNS=0"
	"CGMODE=v2 PROXY_MODE=iptables CNI_TYPE=bridge NODE_PIDNS=0"
	"CGMODE=v2 PROXY_MODE=nftables CNI_TYPE=bridge NODE_PIDNS=1"
	"CGMODE=v2 PROXY_MODE=iptables CNI_TYPE=ptp NODE_PIDNS=1"
	"CGMODE=hybrid PROXY_MODE=iptables CNI_TYPE=bridge NODE_PIDNS=1"
)

# down: whatever is up under our prefix, also what an interrupted run left.
down() { "$cluster/down.sh" >/dev/null || echo "the cluster did not come down whole: see above, and $cluster/down.sh"; }
# shellcheck disable=SC2317
finish() {
	local rc=$?
	trap - EXIT INT TERM
	[ -z "${test:-}" ] || kill -- "-$test" 2>/dev/null || true
	[ "${KEEP_UP:-}" = 1 ] || down
	exit "$rc"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# one full|core SETTING=VALUE...: one configuration from nothing to nothing.
# What it says of a failure stands behind $try.
one() {
	local rows=$1 start=$SECONDS rc=0
	shift
	echo "== e2e: $rows, $*"
	down
	env "$@" EXTRA_IMAGES="$PWD/dist/orb8-agent.tar" "$cluster/up.sh" >dist/e2e-up.log 2>&1 || { sed "s/^/$try/" dist/e2e-up.log; return 1; }
	echo "up after $((SECONDS - start)) s"
	"$cluster/kc" kustomize deploy/overlays/dev | "$cluster/kc" apply --server-side --validate=strict -f - >/dev/null || return 1
	# A session of its own, whose end takes along what the test started. Not in
	# the foreground, so that a signal is heard at once.
	# shellcheck disable=SC1091
	ORB8_E2E=$(. "$cluster/env.sh" && echo "$RUN") ORB8_E2E_ROWS=$rows setsid -- \
		env -C test/e2e ../../dist/e2e.test -test.v -test.timeout 14m -test.parallel "${PARALLEL:-4}" -test.run "TestCluster${ROW:+/$ROW}" >"dist/e2e-$rows.log" 2>&1 &
	test=$!
	wait "$test" || rc=$?
	test=
	if [ $rc = 0 ]; then said "$rows"; else
		{ said "$rows"; agents; } 2>&1 | sed "s/^/$try/"
		cp "dist/e2e-$rows.log" "dist/e2e-$rows-failed-$(date +%H%M%S).log"
	fi
	echo "rows were done after $((SECONDS - start)) s"
	[ "${KEEP_UP:-}" = 1 ] || down
	echo "== e2e: $rows, $*: $([ $rc = 0 ] && echo passed || echo "${try}FAILED") in $((SECONDS - start)) s"
	return $rc
}
# said: what counts of what the rows said, with all lines of each.
said() { awk '/_test\.go:[0-9]+: / { more = 1; print; next } !/^        / { more = 0 } more || /^ *--- |^(PASS|FAIL|panic)/' "dist/e2e-$1.log"; }
# agents: the last words of each.
agents() {
	local node pod
	for node in node1 node2 node3; do
		echo "-- the agent's log on $node"
		pod=$("$cluster/kc" -n orb8-system get pods -l app=orb8-agent --field-selector "spec.nodeName=$node" -o name) || true
		[ -z "$pod" ] || "$cluster/kc" -n orb8-system logs --tail=20 "$pod" || true
	done
}
# twice ARG...: one of them, and once more on a fresh cluster: three nodes on two
# cores have bad moments, and what is wrong fails again.
twice() {
	try="first try: "
	if one "$@"; then return; fi
	try=
	one "$@"
}

failed=0 try=
"$cluster/build.sh"
mkdir -p dist
go test -c -o dist/e2e.test ./test/e2e
case $what in
full | core)
	one "$what" "CGMODE=${CGMODE:-hybrid}" "PROXY_MODE=${PROXY_MODE:-nftables}" "CNI_TYPE=${CNI_TYPE:-ptp}" "NODE_PIDNS=${NODE_PIDNS:-0}" || failed=1
	;;
ci | all)
	rows=full
	for settings in "${configurations[@]}"; do
		# shellcheck disable=SC2086
		twice $rows $settings || failed=1
		[ "$what" = all ] || rows=core
	done
	;;
*)
	echo "run.sh [full|core|ci|all]"
	exit 2
	;;
esac
exit $failed
