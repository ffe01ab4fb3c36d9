#!/bin/bash
# usage: soak.sh HULLD-FAKE [CYCLES [PARALLEL]]
# tests/support/soak.py against the engine over machines of local processes.
set -u
folder=$(mktemp -d /tmp/hull-soak.XXXXXX)
trap '[[ -n ${engine_pid:-} ]] && kill "$engine_pid" 2>/dev/null && wait "$engine_pid" 2>/dev/null; rm -rf "$folder"' EXIT
"$1" "$folder/root" "$folder/s" 2>"$folder/log" &
engine_pid=$!
for _ in $(seq 100); do [[ -S $folder/s ]] && break; sleep 0.1; done
timeout 3000 python3 "$(dirname "$0")/../../support/soak.py" --host "unix://$folder/s" --pid "$engine_pid" --root "$folder/root/containers" \
  --cycles "${2:-60}" --parallel "${3:-10}" || { tail -20 "$folder/log"; exit 1; }
