#!/bin/bash
# podman and buildah push to hull-registry and pull from it: one image, several platforms under one name, a
# blob mounted from another repository, deletion; with passwords, as tokens.
cd "$(dirname "$0")" && . ../support/registry-common.sh
need podman; need buildah; need skopeo; need python3; need curl

users=$work/users
echo secret | "$HULL_BIN/hull-registry" user add ann --htpasswd "$users" --password-stdin
start_hull_registry tokens --htpasswd "$users" --anonymous-pull
export REGISTRY_AUTH_FILE=$work/auth.json
echo '{}' >"$REGISTRY_AUTH_FILE"
storage=(--root "$work/storage" --runroot "$work/run" --storage-driver vfs)
podman() { command podman "${storage[@]}" --cgroup-manager cgroupfs --events-backend file "$@"; }
buildah() { command buildah "${storage[@]}" "$@"; }
cat >"$work/policy.json" <<'POLICY'
{"default": [{"type": "insecureAcceptAnything"}]}
POLICY

# make_image's layers as an image of podman's storage, per platform.
head -c 3000000 /dev/urandom >"$work/big"
for arch in amd64 arm64; do
  container=$(buildah from --arch "$arch" scratch)
  buildah copy -q "$container" "$work/big" /big >/dev/null
  echo "$arch" >"$work/arch"
  buildah copy -q "$container" "$work/arch" /arch >/dev/null
  buildah config --arch "$arch" "$container"
  buildah commit -q --signature-policy "$work/policy.json" "$container" "$arch:1" >/dev/null
done

if podman push -q --tls-verify=false --signature-policy "$work/policy.json" amd64:1 "docker://$registry/team/app:1" 2>/dev/null; then
  fail "podman could push without logging in"
fi
podman login --tls-verify=false -u ann -p secret "$registry" >/dev/null
if podman login --tls-verify=false -u ann -p wrong "$registry" >/dev/null 2>&1; then fail "a wrong password was accepted"; fi
podman login --tls-verify=false -u ann -p secret "$registry" >/dev/null
podman push -q --tls-verify=false --signature-policy "$work/policy.json" amd64:1 "docker://$registry/team/app:1"

buildah manifest create multi >/dev/null
for arch in amd64 arm64; do
  buildah manifest add --arch "$arch" multi "containers-storage:localhost/$arch:1" >/dev/null
done
buildah manifest push --all --tls-verify=false --signature-policy "$work/policy.json" multi "docker://$registry/team/multi:1" >/dev/null 2>&1 ||
  fail "buildah could not push a list"
[ "$(skopeo inspect --raw --tls-verify=false "docker://$registry/team/multi:1" | python3 -c 'import json, sys; print(sorted(m["platform"]["architecture"] for m in json.load(sys.stdin)["manifests"]))')" = "['amd64', 'arm64']" ] ||
  fail "the list lacks a platform"
skopeo copy -q --all --src-tls-verify=false --dest-tls-verify=false "docker://$registry/team/multi:1" "docker://$registry/other/multi:2"

podman logout -q "$registry" >/dev/null 2>&1 || podman logout "$registry" >/dev/null
podman rmi -f -q amd64:1 arm64:1 >/dev/null 2>&1 || podman rmi -f amd64:1 arm64:1 >/dev/null
for arch in amd64 arm64; do
  podman pull -q --tls-verify=false --signature-policy "$work/policy.json" --arch "$arch" "docker://$registry/other/multi:2" >/dev/null
  mount=$(podman image mount "$registry/other/multi:2")
  [ "$(cat "$mount/arch")" = "$arch" ] && cmp "$work/big" "$mount/big" || fail "podman pulled something else for $arch"
  podman image unmount "$registry/other/multi:2" >/dev/null
done

skopeo delete --creds ann:secret --tls-verify=false "docker://$registry/team/app:1"
if skopeo inspect --tls-verify=false "docker://$registry/team/app:1" >/dev/null 2>&1; then fail "what was deleted is still there"; fi
skopeo inspect --tls-verify=false "docker://$registry/team/multi:1" >/dev/null
"$HULL_BIN/hull-registry" verify --root "$work/tokens" >/dev/null || fail "verify found something"
echo "podman, buildah and hull-registry agree"
