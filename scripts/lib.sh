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
  note "docker.io is not reachable: $name comes from Debian's packages"
  local tar
  tar=$(debian_tar "$suite")
  "$hull" import --change 'CMD ["bash"]' --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    "$tar" "$name" >/dev/null || die "importing $tar as $name failed"
  note "imported $name"
}

# The root file system of a Debian release with more packages in it, made once by mmdebstrap. Prints the tar's path.
debian_tar() {
  local suite=$1 list tar
  shift
  list=$(printf '%s\n' "$@" | sort -u)
  tar=$cache/base/debian-$suite${list:+-$(sha256sum <<<"$list" | cut -c1-12)}.tar
  if [[ ! -f $tar ]]; then
    note "making Debian $suite${list:+ with $(tr '\n' ' ' <<<"$list")}from Debian's packages (mmdebstrap, about a minute)"
    mkdir -p "$cache/base"
    local new
    new=$(mktemp "$cache/base/new-XXXXXX.tar")
    # Nothing starts while it is installed.
    mmdebstrap --quiet --variant=minbase --include="$(tr '\n' ',' <<<"$list")" --dpkgopt='path-exclude=/usr/share/doc/*' \
      --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
      --customize-hook='rm -rf "$1"/var/cache/apt/*.bin "$1"/var/lib/apt/lists/*' --aptopt='APT::Install-Recommends "false"' \
      --essential-hook='mkdir -p "$1/etc/postgresql-common"; echo create_main_cluster = false >"$1/etc/postgresql-common/createcluster.conf"' \
      "$suite" "$new" >&2 || { rm -f "$new"; die "mmdebstrap failed; see above. next: check that this machine reaches a Debian mirror"; }
    mv "$new" "$tar"
  fi
  echo "$tar"
}

# Images of programs that tests and benchmarks run, made on this host because installing packages takes long where the CPU is
# emulated: hull-test/servers and hull-test/tools. Prints nothing.
ensure_programs_image() {
  local hull=$1 name=$2 tar
  local -A packages=([hull-test/servers]="curl iperf3 nginx-light postgresql postgresql-contrib redis" [hull-test/tools]="git nodejs")
  "$hull" image inspect "$name" >/dev/null 2>&1 && return
  # shellcheck disable=SC2086
  tar=$(debian_tar bookworm ${packages[$name]})
  "$hull" import --change 'CMD ["bash"]' \
    --change 'ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$tar" "$name" >/dev/null ||
    die "importing $tar as $name failed"
}

# npm, which Debian has in three hundred packages, as the one folder that its makers give out. Prints it.
npm_folder() {
  local version=9.9.4 folder
  folder=$cache/clients/npm-$version
  if [[ ! -d $folder ]]; then
    local work
    work=$(mktemp -d) && mkdir -p "$cache/clients"
    (cd "$work" && npm pack --silent "npm@$version" >/dev/null && tar -xzf "npm-$version.tgz") || { rm -rf "$work"; die "npm@$version cannot be fetched"; }
    mv -T "$work/package" "$folder"
    rm -rf "$work"
  fi
  echo "$folder"
}
