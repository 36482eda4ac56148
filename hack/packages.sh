#!/usr/bin/env bash
# Installs Debian packages that are missing (as root), or names them and the command that installs them.
# Usage: packages.sh run | test | bench
set -euo pipefail

# command:package, for what each use needs
run_needs=(containerd:containerd ctr:containerd runc:runc busybox:busybox-static)
test_needs=("${run_needs[@]}" crun:crun nft:nftables gcc:gcc musl-gcc:musl-tools /usr/include/ares.h:libc-ares-dev /usr/lib/cni/macvlan:containernetworking-plugins
	sshd:openssh-server openssl:openssl newuidmap:uidmap dns2tcpd:dns2tcp)
# what agents run, which must lie where they see it
agent_needs=(git:git ssh:openssh-client curl:curl wget:wget node:nodejs npm:npm python3:python3 pip3:python3-pip cargo:cargo javac:default-jdk-headless
	make:make strace:strace redis-server:redis-server)
bench_needs=("${test_needs[@]}" haproxy:haproxy nginx:nginx-light /usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream tinyproxy:tinyproxy-bin bwrap:bubblewrap
	socat:socat rg:ripgrep)

case "${1:-}" in
run) needs=("${run_needs[@]}") ;;
test) needs=("${test_needs[@]}") ;;
bench) needs=("${bench_needs[@]}") ;;
*)
	echo "usage: $0 run|test|bench" >&2
	exit 2
	;;
esac

missing=()
for need in "${needs[@]}"; do
	command -v "${need%%:*}" >/dev/null || [ -f "${need%%:*}" ] || missing+=("${need#*:}")
done
if [ "$1" != run ]; then
	for need in "${agent_needs[@]}"; do
		PATH=/usr/local/bin:/usr/bin:/bin command -v "${need%%:*}" >/dev/null || missing+=("${need#*:}")
	done
fi
# The busybox of an image must be static; Debian's package of that name is the dynamic one.
if command -v busybox >/dev/null && ldd "$(command -v busybox)" >/dev/null 2>&1; then
	missing+=(busybox-static)
fi
npm_peer() { # a peer of cofferdam run that Debian does not have
	[ "$1" != bench ] || command -v srt >/dev/null || npm install --silent --global @anthropic-ai/sandbox-runtime
}
if [ ${#missing[@]} -eq 0 ]; then
	npm_peer "$1"
	exit 0
fi
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)

install="apt-get install -y --no-install-recommends ${missing[*]}"
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "missing: ${missing[*]}; as root on Debian: $install" >&2
	exit 125
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq

# Servers are wanted as programs: their services neither start now nor with the machine.
services=()
for package in "${missing[@]}"; do
	case "$package" in
	haproxy) services+=("$package") ;;
	nginx-light) services+=(nginx) ;;
	openssh-server) services+=(ssh) ;;
	dns2tcp) services+=("$package") ;;
	redis-server) services+=(redis-server) ;;
	esac
done
policy=/usr/sbin/policy-rc.d # asked by invoke-rc.d(8)
if [ ${#services[@]} -gt 0 ] && [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	cat >"$policy" <<'EOF'
#!/bin/sh
[ "$1" = containerd ] || exit 101
EOF
	chmod 755 "$policy"
fi
$install -qq >/dev/null
if [ ${#services[@]} -gt 0 ] && command -v systemctl >/dev/null; then
	systemctl --quiet disable "${services[@]}"
fi
npm_peer "$1"
