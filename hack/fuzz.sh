#!/usr/bin/env bash
# Runs every fuzzer of the module for the given time each. Usage: fuzz.sh 1m
set -euo pipefail
time=${1:?usage: fuzz.sh TIME}
go list -f '{{.Dir}}' ./... | while read -r dir; do
	{ grep -ho '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go 2>/dev/null || true; } | sed 's/^func //' | while read -r fuzz; do
		echo "== ${dir#"$PWD"/} $fuzz"
		go test -run '^$' -fuzz "^$fuzz\$" -fuzztime "$time" "$dir"
	done
done
