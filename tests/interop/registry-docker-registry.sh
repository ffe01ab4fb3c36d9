#!/bin/bash
# An image goes from Debian's docker-registry to hull-registry and back by skopeo: what one serves
# the other takes, and the manifest's digest stays the same all the way.
cd "$(dirname "$0")" && . ../support/registry-common.sh
need skopeo; need python3; need docker-registry

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$work/config.yml" <<CONFIG
version: 0.1
storage: {filesystem: {rootdirectory: $work/docker-registry}}
http: {addr: "127.0.0.1:$port"}
CONFIG
docker-registry serve "$work/config.yml" >"$work/docker-registry.log" 2>&1 &
pids+=($!)
for _ in $(seq 100); do
  curl -fs "http://127.0.0.1:$port/v2/" >/dev/null 2>&1 && break
  sleep 0.1
done
theirs=127.0.0.1:$port

make_image "$work/image"
start_hull_registry ours
skopeo copy -q --dest-tls-verify=false "oci:$work/image:latest" "docker://$theirs/app:1"
skopeo copy -q --src-tls-verify=false --dest-tls-verify=false "docker://$theirs/app:1" "docker://$registry/app:1"
skopeo copy -q --src-tls-verify=false --dest-tls-verify=false "docker://$registry/app:1" "docker://$theirs/again:1"
digest() { skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://$1"; }
[ "$(digest "$theirs/app:1")" = "$(digest "$registry/app:1")" ] || fail "the digest changed"
[ "$(digest "$theirs/app:1")" = "$(digest "$theirs/again:1")" ] || fail "the digest changed"
echo "docker-registry and hull-registry agree"
