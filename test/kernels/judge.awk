# SPDX-License-Identifier: Apache-2.0
# Reads what `go test -v` printed in a machine: says per kernel how many tests
# passed, failed and were skipped, and why. Exit 1 if a test failed, a room did
# not end well or ran nothing, or a skip is not on the list in $allowed. Set by
# the caller: series, rooms, left_out.

BEGIN {
	lines = split(ENVIRON["allowed"], line, "\n")
	for (i = 1; i <= lines; i++) {
		if (line[i] !~ /[^ ]/) continue
		split(line[i], word, " ")
		rules++
		kernel[rules] = "^(" word[1] ")$"
		test[rules] = "^(" word[2] ")$"
		reason[rules] = line[i]
		sub(/^ *[^ ]+ +[^ ]+ +/, "", reason[rules])
	}
}

/^=room / { room = $2; begun[room] = 1; next }
/^=exit / { if ($2 == 0) ended[room] = 1; else bad(room " ended with status " $2); next }
/^=== (RUN|CONT|NAME) / { current = $3; next }
/^ *--- PASS: / { ran[room]++; if ($0 !~ /^ /) passed++; next }
/^ *--- FAIL: / { failed++; bad(room " " $3 " failed"); next }
/^ *--- SKIP: / { skip($3); next }
/^panic: / { bad(room " " $0); next }
# What a test said last before it was skipped is the reason.
/^ +[a-z_0-9A-Z]+\.go:[0-9]+: / { said[current] = $0; sub(/^ +[^ ]+ /, "", said[current]); next }

function bad(what) { problems[++wrong] = what }

function skip(name,   why, i) {
	skipped++
	why = said[name]
	why_all[why] = why_all[why] " " name
	for (i = 1; i <= rules; i++)
		if (series ~ kernel[i] && name ~ test[i] && why ~ reason[i]) { used[i] = 1; return }
	bad(room " " name " was skipped, which is not on the list: " why)
}

END {
	n = split(rooms, all, " ")
	for (i = 1; i <= n; i++) {
		if (!begun[all[i]]) bad(all[i] " was not begun")
		else if (!ended[all[i]]) bad(all[i] " did not end well")
		else if (!ran[all[i]] && !ENVIRON["ORB8_TESTS"]) bad(all[i] " passed no test")
	}
	printf "   %s: %d passed, %d failed, %d skipped\n", series, passed, failed, skipped
	n = split(left_out, word, " ")
	for (i = 1; i < n; i += 2) if (begun[word[i]]) printf "     left out, judges time: %s %s\n", word[i], word[i + 1]
	for (why in why_all) printf "     skipped, %s:%s\n", why, why_all[why]
	for (i = 1; i <= wrong; i++) printf "     WRONG: %s\n", problems[i]
	exit wrong > 0
}
