# Sourced by the registry scripts of this folder: HULL_BIN is the folder with hull-registry.
# Exit 77 means skipped, with the reason printed.
set -euo pipefail

skip() { echo "skipped: $1"; exit 77; }
fail() { echo "FAILED: $1" >&2; exit 1; }
need() { command -v "$1" >/dev/null || skip "$1 is not installed"; }

: "${HULL_BIN:?set HULL_BIN to the folder with hull-registry}"
[ -x "$HULL_BIN/hull-registry" ] || skip "$HULL_BIN/hull-registry is not built"

work=$(mktemp -d "${TMPDIR:-/tmp}/hull-interop.XXXXXX")
pids=()
cleanup() {
  local status=$? pid
  for pid in "${pids[@]}"; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  rm -rf "$work"
  exit "$status"
}
trap cleanup EXIT

# start_hull_registry NAME [OPTION…]: sets `registry` to its address.
start_hull_registry() {
  local name=$1; shift
  "$HULL_BIN/hull-registry" --listen 127.0.0.1:0 --root "$work/$name" "$@" 2>"$work/$name.log" &
  pids+=($!)
  for _ in $(seq 100); do
    registry=$(sed -nE 's|.*listening on https?://([0-9.:]+),.*|\1|p' "$work/$name.log")
    [ -n "$registry" ] && return
    kill -0 "${pids[-1]}" 2>/dev/null || { cat "$work/$name.log"; fail "hull-registry ended"; }
    sleep 0.1
  done
  fail "hull-registry did not start listening"
}

# make_image FOLDER: an OCI layout with two layers and a configuration, as no code of Hull made it.
make_image() {
  python3 - "$1" <<'PY'
import gzip, hashlib, io, json, os, sys, tarfile
root = sys.argv[1]
os.makedirs(root + "/blobs/sha256")
def put(data):
    digest = hashlib.sha256(data).hexdigest()
    open(f"{root}/blobs/sha256/{digest}", "wb").write(data)
    return {"digest": "sha256:" + digest, "size": len(data)}
def layer(name, data):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name); info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()
tars = [layer("big", os.urandom(8 << 20)), layer("small", b"hello")]
oci = "application/vnd.oci.image."
layers = [dict(put(gzip.compress(t, 1)), mediaType=oci + "layer.v1.tar+gzip") for t in tars]
config = dict(put(json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/big"]},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(t).hexdigest() for t in tars]}}).encode()),
    mediaType=oci + "config.v1+json")
manifest = dict(put(json.dumps({"schemaVersion": 2, "mediaType": oci + "manifest.v1+json",
    "config": config, "layers": layers}).encode()), mediaType=oci + "manifest.v1+json",
    annotations={"org.opencontainers.image.ref.name": "latest"})
json.dump({"schemaVersion": 2, "manifests": [manifest]}, open(root + "/index.json", "w"))
json.dump({"imageLayoutVersion": "1.0.0"}, open(root + "/oci-layout", "w"))
PY
}

# Every blob of one layout is in the other, byte for byte.
same_blobs() {
  diff -r "$1/blobs" "$2/blobs" >/dev/null || fail "$1 and $2 differ"
}
