#!/usr/bin/env bash
# Installs Debian packages that are missing (as root), or names them and the command that installs them.
# Usage: packages.sh run | test
set -euo pipefail

# command:package, for what each use needs
run_needs=(containerd:containerd ctr:containerd runc:runc busybox:busybox-static)
test_needs=("${run_needs[@]}" crun:crun nft:nftables gcc:gcc /usr/lib/cni/macvlan:containernetworking-plugins)

case "${1:-}" in
run) needs=("${run_needs[@]}") ;;
test) needs=("${test_needs[@]}") ;;
*)
	echo "usage: $0 run|test" >&2
	exit 2
	;;
esac

missing=()
for need in "${needs[@]}"; do
	command -v "${need%%:*}" >/dev/null || missing+=("${need#*:}")
done
# The busybox of an image must be static; Debian's package of that name is the dynamic one.
if command -v busybox >/dev/null && ldd "$(command -v busybox)" >/dev/null 2>&1; then
	missing+=(busybox-static)
fi
if [ ${#missing[@]} -eq 0 ]; then
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
$install -qq >/dev/null
