#!/usr/bin/env bash
# Builds the binaries into a folder, static, so that one build runs on every distribution.
# Usage: build.sh FOLDER PACKAGE...
# TAGS: further build tags, separated by commas.
set -euo pipefail
out=$1
shift
cd "$(dirname "$0")/.."
mkdir -p "$out"
out=$(cd "$out" && pwd)

go=${GO:-go}
plain=()
for package in "$@"; do
	case "$package" in
	# Namespaces are entered before Go runs, by C (libcontainer's nsenter, shim/runner/userns), which needs cgo.
	./cmd/cofferdam)
		CGO_ENABLED=1 "$go" build -trimpath -tags "netgo,osusergo,${TAGS:-}" \
			-ldflags '-s -w -linkmode external -extldflags -static' -o "$out/" "$package"
		;;
	*) plain+=("$package") ;;
	esac
done
if [ ${#plain[@]} -gt 0 ]; then
	CGO_ENABLED=0 "$go" build -trimpath -tags "${TAGS:-}" -ldflags '-s -w' -o "$out/" "${plain[@]}"
fi
