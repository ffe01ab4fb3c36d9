#!/bin/bash
# The commands a keeper of hull-registry has: users, garbage collection beside a running server and without
# one, retention, verification; and the folder as an OCI layout that skopeo and umoci read without the server.
cd "$(dirname "$0")" && . ../support/registry-common.sh
need skopeo; need python3; need curl

users=$work/users
echo secret | "$HULL_BIN/hull-registry" user add ann --htpasswd "$users" --password-stdin
echo other | "$HULL_BIN/hull-registry" user add bob --htpasswd "$users" --password-stdin
[ "$("$HULL_BIN/hull-registry" user list --htpasswd "$users")" = $'ann\nbob' ] || fail "users are not listed"
"$HULL_BIN/hull-registry" user remove bob --htpasswd "$users"
[ "$(stat -c %a "$users")" = 600 ] || fail "the passwords are for everybody"

make_image "$work/image"
cat >"$work/config.json" <<CONFIG
{"access": {"htpasswd": "$users", "anonymous_pull": true, "token": {}},
 "collection": {"grace": 0, "retention": [{"repository": "ci/*", "keep_newest": 1}]}}
CONFIG
start_hull_registry served --config "$work/config.json"
copy() { skopeo copy -q --src-tls-verify=false --dest-tls-verify=false "$@"; }
if copy "oci:$work/image:latest" "docker://$registry/ci/app:1" 2>/dev/null; then fail "anybody could push"; fi
for tag in 1 2 3; do
  copy --dest-creds ann:secret "oci:$work/image:latest" "docker://$registry/ci/app:$tag"
done
copy "docker://$registry/ci/app:3" "oci:$work/back:latest"  # without a password
same_blobs "$work/image" "$work/back"

# An upload that no manifest names.
printf lost >"$work/lost"
lost=sha256:$(sha256sum "$work/lost" | cut -d' ' -f1)
curl -fsS -u ann:secret --data-binary "@$work/lost" -H "Content-Type: application/octet-stream" "http://$registry/v2/ci/app/blobs/uploads/?digest=$lost"

sleep 1.1  # no younger than the grace period
gc() { "$HULL_BIN/hull-registry" gc --root "$work/served" "$@"; }
told=$(gc --dry-run)
grep -q "^tag ci/app:1$" <<<"$told" && grep -q "^blob ci/app@$lost$" <<<"$told" || fail "the dry run told: $told"
curl -fsS "http://$registry/v2/ci/app/tags/list" -u ann:secret | grep -q '\["1","2","3"\]' || fail "the dry run removed tags"
gc | grep -q "^removed 2 tags, 0 manifests, 1 blobs" || fail "garbage was not collected"
curl -fsS "http://$registry/v2/ci/app/tags/list" -u ann:secret | grep -q '\["3"\]' || fail "retention kept: $(gc)"
[ ! -e "$work/served/blobs/${lost/://}" ] || fail "the content is still there"
"$HULL_BIN/hull-registry" verify --root "$work/served" || fail "verify found something"
copy "docker://$registry/ci/app:3" "oci:$work/again:latest"
same_blobs "$work/image" "$work/again"

kill "${pids[-1]}" && wait "${pids[-1]}" || true
gc --dry-run | tail -n 1 | grep -q "^would remove 0 tags, 0 manifests, 0 blobs" || fail "without the server gc differs"
# The folder itself is an image layout.
[ "$(skopeo inspect --raw "oci:$work/served:ci/app:3" | sha256sum)" = "$(skopeo inspect --raw "oci:$work/image:latest" | sha256sum)" ] ||
  fail "skopeo reads another manifest from the folder"
if command -v umoci >/dev/null; then
  umoci raw unpack --rootless --image "$work/served:ci/app:3" "$work/unpacked" >/dev/null
  [ "$(cat "$work/unpacked/small")" = hello ] || fail "umoci unpacked something else"
fi
big=$(find "$work/served/blobs/sha256" -size +1M | head -n 1)
printf x | dd of="$big" bs=1 seek=100 conv=notrunc status=none
if "$HULL_BIN/hull-registry" verify --root "$work/served" >"$work/found"; then fail "verify missed a changed content"; fi
grep -q "^content sha256:$(basename "$big"): its digest is" "$work/found" || fail "verify said: $(cat "$work/found")"
echo "users, gc, retention and verify do what they say"
