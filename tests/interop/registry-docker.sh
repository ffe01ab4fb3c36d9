#!/bin/bash
# A docker daemon of the test's own (no bridge, no rules) pushes to hull-registry and pulls from it: mounting, deletion,
# passwords, an index of platforms; and archives travel both ways between docker and Hull's engine.
cd "$(dirname "$0")" && . ../support/registry-common.sh
need dockerd; need docker; need skopeo; need python3
[ "$(id -u)" = 0 ] || skip "dockerd needs root"
fake=$HULL_BIN/../tests/hulld-fake
[ -x "$fake" ] || skip "$fake is not built"

export DOCKER_CONFIG=$work/config DOCKER_HOST=unix://$work/docker.sock
mkdir "$DOCKER_CONFIG"
dockerd --data-root "$work/docker" --exec-root "$work/exec" --pidfile "$work/pid" -H "$DOCKER_HOST" --bridge none \
  --iptables=false --ip6tables=false --storage-driver vfs >"$work/dockerd.log" 2>&1 &
dockerd=$!
pids+=("$dockerd")
for _ in $(seq 300); do
  docker version >/dev/null 2>&1 && break
  kill -0 "$dockerd" 2>/dev/null || skip "dockerd does not run here: $(grep -v level=info "$work/dockerd.log" | tail -n 1)"
  sleep 0.2
done
docker version >/dev/null || fail "dockerd does not answer"

echo secret | "$HULL_BIN/hull-registry" user add ann --htpasswd "$work/users" --password-stdin
start_hull_registry store --htpasswd "$work/users" --anonymous-pull

# Two images that share a layer, one of which no other repository has.
mkdir "$work/tree" && head -c 3000000 /dev/urandom >"$work/tree/big"
tar -C "$work/tree" -c big | docker import - "$registry/team/app:1" >/dev/null
if docker push -q "$registry/team/app:1" >/dev/null 2>&1; then fail "docker could push without logging in"; fi
if echo wrong | docker login -u ann --password-stdin "$registry" >/dev/null 2>&1; then fail "a wrong password was accepted"; fi
echo secret | docker login -u ann --password-stdin "$registry" >/dev/null 2>&1 || fail "docker could not log in"
docker push -q "$registry/team/app:1" >/dev/null || fail "docker could not push"
docker tag "$registry/team/app:1" "$registry/other/app:2"
docker push "$registry/other/app:2" >"$work/pushed"
grep -Eq "Mounted from team/app|Layer already exists" "$work/pushed" || fail "docker sent a layer again: $(cat "$work/pushed")"

identity() { docker inspect -f '{{.Id}}' "$1"; }
wanted=$(identity "$registry/other/app:2")
docker rmi -f "$wanted" >/dev/null
docker pull -q "$registry/other/app:2" >/dev/null || fail "docker could not pull"
[ "$(identity "$registry/other/app:2")" = "$wanted" ] || fail "docker pulled another image"

# An index: docker takes the platform that it is asked for.
make_image "$work/image"
for arch in amd64 arm64; do
  skopeo copy -q --dest-tls-verify=false --dest-creds ann:secret "oci:$work/image:latest" "docker://$registry/team/$arch:1"
done
python3 - "$registry" <<'PY'
import base64, json, sys, urllib.request
registry = sys.argv[1]
accept = "application/vnd.oci.image.manifest.v1+json"
login = "Basic " + base64.b64encode(b"ann:secret").decode()
def ask(method, path, body=None, **headers):
    return urllib.request.urlopen(urllib.request.Request(f"http://{registry}/v2/{path}", body, {"Authorization": login, **headers}, method=method))
manifest = ask("GET", "team/amd64/manifests/1", Accept=accept).read()
def put(kind, data, name):
    return ask("PUT", f"team/multi/manifests/{name}", data, **{"Content-Type": kind}).headers["Docker-Content-Digest"]
document = json.loads(manifest)
for blob in [document["config"], *document["layers"]]:
    ask("POST", f"team/multi/blobs/uploads/?mount={blob['digest']}&from=team/amd64", b"")
configuration = json.loads(ask("GET", f"team/amd64/blobs/{document['config']['digest']}").read())
entries = []
for arch in ("amd64", "arm64"):
    data = json.dumps({**configuration, "architecture": arch}).encode()
    import hashlib
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    place = ask("POST", "team/multi/blobs/uploads/", b"").headers["Location"].split("/v2/", 1)[1]
    ask("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}", data, **{"Content-Type": "application/octet-stream"})
    one = json.dumps({**document, "config": {**document["config"], "digest": digest, "size": len(data)}}).encode()
    entries.append({"mediaType": accept, "digest": put(accept, one, "sha256:" + hashlib.sha256(one).hexdigest()), "size": len(one),
                    "platform": {"os": "linux", "architecture": arch}})
kind = "application/vnd.oci.image.index.v1+json"
put(kind, json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode(), "1")
PY
for arch in amd64 arm64; do
  docker pull -q --platform "linux/$arch" "$registry/team/multi:1" >/dev/null || fail "docker could not pull for $arch"
  [ "$(docker inspect -f '{{.Architecture}}' "$registry/team/multi:1")" = "$arch" ] || fail "docker got another platform than $arch"
  docker rmi -f "$registry/team/multi:1" >/dev/null
done
skopeo delete --tls-verify=false --creds ann:secret "docker://$registry/team/multi:1"
if docker pull -q "$registry/team/multi:1" >/dev/null 2>&1; then fail "what was deleted is still there"; fi

# Archives, and Hull's own pushes.
"$fake" "$work/engine" "$work/hull.sock" >"$work/engine.log" 2>&1 &
pids+=($!)
hull() { "$HULL_BIN/hull" -H "unix://$work/hull.sock" "$@"; }
for _ in $(seq 100); do hull version >/dev/null 2>&1 && break; sleep 0.2; done
docker tag "$registry/other/app:2" app:docker
docker save app:docker | hull load >/dev/null
[ "$(hull inspect -f '{{.Id}}' app:docker)" = "$wanted" ] || fail "Hull loaded something else from docker's archive"
docker rmi -f "$wanted" >/dev/null
hull save app:docker | docker load -q >/dev/null
[ "$(identity app:docker)" = "$wanted" ] || fail "docker loaded something else from Hull's archive"
hull tag app:docker "$registry/team/hull:1"
hull push -q "$registry/team/hull:1" >/dev/null
docker rmi -f "$wanted" >/dev/null
docker pull -q "$registry/team/hull:1" >/dev/null || fail "docker could not pull what Hull pushed"
[ "$(identity "$registry/team/hull:1")" = "$wanted" ] || fail "docker pulled another image than Hull pushed"
if command -v umoci >/dev/null; then
  skopeo copy -q --src-tls-verify=false "docker://$registry/team/hull:1" "oci:$work/pushed-by-hull:1"
  umoci unpack --image "$work/pushed-by-hull:1" "$work/unpacked" >/dev/null 2>&1 || fail "umoci could not unpack what Hull pushed"
  cmp "$work/tree/big" "$work/unpacked/rootfs/big" || fail "umoci unpacked something else"
fi
"$HULL_BIN/hull-registry" verify --root "$work/store" >/dev/null || fail "verify found something"
echo "docker, hull-registry and Hull's engine agree"
