# shellcheck shell=bash
# Shared by scripts/quickstart, test, check and bench: messages, packages, the build. Sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$root/build
bin=$build/bin
# Clones in different places share what is compiled.
export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1 CCACHE_SLOPPINESS=time_macros
cache=${HULL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hull}

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
note() { printf '    %s\n' "$*" >&2; }
die() { printf '\033[1;31merror:\033[0m %s\n' "$*" >&2; exit 1; }

as_root() {
  if [[ $(id -u) == 0 ]]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "needs root for: $*; run it as root, or install sudo"
  fi
}

# Installs what is missing of the packages named in the files given; of "a|b" the first that the release has.
# Nothing to do is quick.
install_packages() {
  local missing
  missing=$(missing_packages "$@")
  [[ -z $missing ]] && return
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq || note "apt-get update failed; trying with the lists at hand"
  missing=$(for choice in $missing; do first_available "$choice"; done)
  say "installing packages: $(tr '\n' ' ' <<<"$missing")"
  # shellcheck disable=SC2086
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
    die "apt-get install failed for: $(tr '\n' ' ' <<<"$missing")
  next: run 'apt-get update' and 'apt-get install' of these by hand and read what they say"
}

missing_packages() {
  local choice package here
  for choice in $(sed 's/#.*//' "$@" | sort -u); do
    here=
    for package in ${choice//|/ }; do
      dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed && here=1 && break
      [[ -n $(apt-cache show "$package" 2>/dev/null) ]] && break  # this one, then, and none of the later
    done
    [[ -n $here ]] || echo "$choice"
  done
}

first_available() {
  local package
  for package in ${1//|/ }; do
    # Names that others only mention are shown as nothing, without an error.
    [[ -n $(apt-cache show "$package" 2>/dev/null) ]] && { echo "$package"; return; }
  done
  echo "${1%%|*}"
}

# Configures and builds `preset`; the log is shown when it fails.
build_preset() {
  local preset=$1 directory=$2; shift 2
  mkdir -p "$build"
  if [[ ! -f $directory/build.ninja ]]; then
    cmake -S "$root" --preset "$preset" >"$build/configure-$preset.log" 2>&1 ||
      { tail -n 30 "$build/configure-$preset.log" >&2; die "cmake failed; the whole log is $build/configure-$preset.log"; }
  fi
  if [[ -t 2 ]]; then
    ninja -C "$directory" "$@" >&2 || die "the build failed; the lines above say where"
  else
    ninja -C "$directory" --quiet "$@" >&2 || die "the build failed; the lines above say where"
  fi
}

# Puts the guest kernel beside the programs that need it.
place_kernel() {
  local kernel
  kernel=$("$root/scripts/kernel" | tail -n 1) || die "the guest kernel could not be built; see above"
  if ! cmp -s "$kernel" "$bin/vmlinux"; then
    cp "$kernel" "$bin/vmlinux.new" && mv "$bin/vmlinux.new" "$bin/vmlinux"
  fi
}

# A Debian base image as the engine's `name`: from its registry when that is reachable, else made
# from Debian's packages and imported under the same name. Prints which.
ensure_base_image() {
  local hull=$1 name=$2 suite=$3
  if "$hull" image inspect "$name" >/dev/null 2>&1; then
    note "$name is here already"
    return
  fi
  if curl -s -o /dev/null --max-time 10 https://registry-1.docker.io/v2/ && "$hull" pull "$name"; then
    note "pulled $name from docker.io"
    return
  fi
  local tar=$cache/base/debian-$suite.tar
  if [[ ! -f $tar ]]; then
    note "docker.io is not reachable: making $name from Debian's packages (mmdebstrap, about a minute)"
    mkdir -p "$cache/base"
    mmdebstrap --quiet --variant=minbase --dpkgopt='path-exclude=/usr/share/doc/*' \
      --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
      --customize-hook='rm -rf "$1"/var/cache/apt/*.bin "$1"/var/lib/apt/lists/*' \
      "$suite" "$cache/base/new-$suite.tar" >&2 || die "mmdebstrap failed; see above. next: check that this machine reaches a Debian mirror"
    mv "$cache/base/new-$suite.tar" "$tar"
  else
    note "docker.io is not reachable: $name comes from $tar, made from Debian's packages"
  fi
  "$hull" import --change 'CMD ["bash"]' --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    "$tar" "$name" >/dev/null || die "importing $tar as $name failed"
  note "imported $name"
}
