#!/bin/bash
# usage: fetch.sh RELEASE PACKAGE…   prints a folder
# Debian packages of another release, unpacked beside the system's own: apt with lists of its own fetches them (signatures
# checked), and they are kept under ~/.cache/hull/clients/<digest of what apt would install>. Needs no root. Exit 77: no network.
set -euo pipefail
release=$1
shift
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hull/clients
state=$cache/apt-$release
mkdir -p "$state"/{lists/partial,cache/archives/partial,etc}
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $release main" >"$state/etc/sources.list"
: >"$state/status"
apt=(apt-get -qq -o Dir::State="$state" -o Dir::State::status="$state/status" -o Dir::State::lists="$state/lists" -o Dir::Cache="$state/cache"
  -o Dir::Etc::sourcelist="$state/etc/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferencesparts=/dev/null -o APT::Sandbox::User=root
  -o Acquire::Languages=none -o Acquire::Retries=2 -o Debug::NoLocking=1)
# Lists of this day are new enough for a test.
if [[ -z $(find "$state/lists" -maxdepth 1 -name '*_Packages*' -mtime -1) ]]; then
  "${apt[@]}" update >&2 || { echo "no package lists of $release (is there a network?)" >&2; exit 77; }
fi
lines=$("${apt[@]}" download --print-uris "$@")
digest=$(sha256sum <<<"$lines" | cut -c1-16)
folder=$cache/$release-$digest
if [[ ! -d $folder ]]; then
  work=$(mktemp -d "$cache/work.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  (cd "$work" && "${apt[@]}" download "$@" >&2) || exit 77
  mkdir "$work/root"
  for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/root"; done
  mv -T "$work/root" "$folder" 2>/dev/null || [[ -d $folder ]]
fi
echo "$folder"
