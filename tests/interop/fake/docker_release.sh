#!/bin/bash
# usage: docker_release.sh HULLD-FAKE RELEASE PACKAGE
# docker_clients.sh with the docker of another Debian release. Exit 77 when it cannot be fetched.
set -u
here=$(dirname "$0")
if ! folder=$("$here/../clients/fetch.sh" "$2" "$3" 2>/tmp/hull-fetch.$$); then
  tail -1 /tmp/hull-fetch.$$; rm -f /tmp/hull-fetch.$$
  echo "skipped: docker of Debian $2 cannot be fetched (no network?)"
  exit 77
fi
rm -f /tmp/hull-fetch.$$
"$folder/usr/bin/docker" --version || exit 1
exec "$here/docker_clients.sh" "$1" "$folder/usr/bin"
