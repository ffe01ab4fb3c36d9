#!/bin/bash
# usage: testcontainers.sh HULLD-FAKE
# testcontainers (npm, version 10) against the engine, its machines replaced by local processes. Exit 77: no node, no network.
set -u
here=$(cd "$(dirname "$0")/../clients/testcontainers" && pwd)
command -v npm >/dev/null || { echo "skipped: no npm here (Debian: npm)"; exit 77; }
# Its reaper binds the engine's socket into a container, which is no file of a virtual machine: switched off, as its documentation
# says for engines like that.
export TESTCONTAINERS_RYUK_DISABLED=true
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hull/clients/testcontainers-$(sha256sum <"$here/package.json" | cut -c1-16)
if [[ ! -d $cache/node_modules/testcontainers ]]; then
  mkdir -p "$cache" && cp "$here/package.json" "$cache/"
  (cd "$cache" && timeout 600 npm install --no-audit --no-fund --ignore-scripts >"$cache/log" 2>&1) || { rm -rf "$cache"; echo "skipped: testcontainers cannot be fetched (no network?)"; exit 77; }
fi
folder=$(mktemp -d /tmp/hull-testcontainers.XXXXXX)
trap '[[ -n ${engine_pid:-} ]] && kill "$engine_pid" 2>/dev/null && wait "$engine_pid" 2>/dev/null; rm -rf "$folder"' EXIT
"$1" "$folder/root" "$folder/s" 2>"$folder/log" &
engine_pid=$!
for _ in $(seq 100); do [[ -S $folder/s ]] && break; sleep 0.1; done
DOCKER_HOST=unix://$folder/s NODE_PATH=$cache/node_modules timeout 300 node "$here/flow.js" || { tail -20 "$folder/log"; exit 1; }
