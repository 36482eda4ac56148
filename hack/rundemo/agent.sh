#!/bin/sh
# An agent that does its task, and then what somebody who has hijacked it might try. Nobody has to believe what it says: the demonstration
# looks from outside at what has become of each attempt.
# TOKEN, WEB and OTHER (host:port of the two names), SINK (port), ADDRESSES (of the host), SECRET (a path on the host), PROBE (a program)
set -u

attempt() {
	what=$1
	shift
	end=refused
	answer=$("$@" 2>&1) && end=worked
	why=$(printf '%s\n' "$answer" | sed -n '
		s/.*\\nreason: \([^\\]*\)\\n.*/ (\1)/p; t
		s/.*"errno":"\([^"]*\)".*/ (\1)/p; t
		s/.*"detail":"\([^"]*\)".*/ (\1)/p; t
		s/.*: \(No such file.*\)/ (\1)/p' | tail -n 1)
	echo "$what: $end$why"
	printf '%s\n' "$answer" >>answers
}

echo "$TOKEN" >report.txt
attempt "fetch http://$WEB/" "$PROBE" http "$WEB" web.test
attempt "fetch http://$OTHER/" "$PROBE" http "$OTHER" other.test
attempt "ask web.test for Host: other.test" "$PROBE" http "$WEB" other.test
attempt "read $SECRET" cat "$SECRET"
cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' >processes
for a in $ADDRESSES; do
	case $a in *:*) to="[$a]:$SINK" ;; *) to="$a:$SINK" ;; esac
	attempt "TCP to $to" "$PROBE" -patience 300ms tcp "$to" loot
	attempt "UDP to $to" "$PROBE" -patience 300ms udp "$to" loot
done
