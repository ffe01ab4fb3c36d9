#!/bin/bash
# testcontainers (npm, version 10) against the engine: tests written with it start, await, copy into and stop containers.
# Exit 77: no node, no network.
set -euo pipefail
here=$(cd "$(dirname "$0")/clients/testcontainers" && pwd)
command -v npm >/dev/null || { echo "skipped: no npm here (Debian: npm)"; exit 77; }
# Its reaper binds the engine's socket into a container, which is no file of a virtual machine: switched off, as its documentation
# says for engines like that.
export TESTCONTAINERS_RYUK_DISABLED=true
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hull/clients/testcontainers-$(sha256sum <"$here/package.json" | cut -c1-16)
if [[ ! -d $cache/node_modules/testcontainers ]]; then
  mkdir -p "$cache" && cp "$here/package.json" "$cache/"
  (cd "$cache" && timeout 600 npm install --no-audit --no-fund --ignore-scripts >"$cache/log" 2>&1) ||
    { rm -rf "$cache"; echo "skipped: testcontainers cannot be fetched (no network?)"; exit 77; }
fi
DOCKER_HOST=$HULL_HOST NODE_PATH=$cache/node_modules timeout 600 node "$here/flow.js"
