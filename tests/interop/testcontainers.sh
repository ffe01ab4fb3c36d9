#!/bin/bash
# testcontainers (npm, version 10) against the engine: tests written with it start, await, copy into and stop containers.
# Exit 77: no node, no network.
set -euo pipefail
here=$(cd "$(dirname "$0")/clients/testcontainers" && pwd)
command -v npm >/dev/null || { echo "skipped: no npm here (Debian: npm)"; exit 77; }
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hull/clients/testcontainers-$(sha256sum <"$here/package.json" | cut -c1-16)
if [[ ! -d $cache/node_modules/testcontainers ]]; then
  mkdir -p "$cache" && cp "$here/package.json" "$cache/"
  (cd "$cache" && timeout 600 npm install --no-audit --no-fund --ignore-scripts >"$cache/log" 2>&1) ||
    { rm -rf "$cache"; echo "skipped: testcontainers cannot be fetched (no network?)"; exit 77; }
fi
# Its reaper is a container that has the engine's socket; where its image cannot be had (Docker Hub) it is switched off.
reaper=$(grep -rhom1 'testcontainers/ryuk:[0-9.]*' "$cache/node_modules/testcontainers/build/reaper" | head -n 1)
if ! "${HULL_BIN:-build/bin}/hull" pull -q "$reaper" >/dev/null 2>&1; then
  echo "without its reaper: $reaper cannot be pulled"
  export TESTCONTAINERS_RYUK_DISABLED=true
fi
DOCKER_HOST=$HULL_HOST NODE_PATH=$cache/node_modules timeout 600 node "$here/flow.js"
