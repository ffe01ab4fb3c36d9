#!/bin/bash
# usage: compose.sh HULLD-FAKE 1|2
# docker-compose 1.29 (Debian 12's, in Python) or docker compose 2 (Debian 13's) against the engine, its machines replaced by
# local processes: a project of two services up, seen, asked, scaled, stopped and taken down. Exit 77: it cannot be fetched.
set -u
here=$(dirname "$0") engine=$1 version=$2
folder=$(mktemp -d /tmp/hull-compose.XXXXXX)
failed=0 passed=0
export DOCKER_HOST=unix://$folder/s DOCKER_CONFIG=$folder/config DOCKER_BUILDKIT=0 COMPOSE_PROJECT_NAME=ship

finish() {
  [[ -n ${engine_pid:-} ]] && kill "$engine_pid" 2>/dev/null && wait "$engine_pid" 2>/dev/null
  rm -rf "$folder"
}
trap finish EXIT

skip() {
  echo "skipped: compose $version cannot be fetched (no network?)"
  exit 77
}
mkdir -p "$folder/config/cli-plugins"
if [[ $version == 1 ]]; then
  packages=$("$here/../clients/fetch.sh" bookworm docker-compose python3-docker python3-dockerpty python3-docopt python3-jsonschema \
    python3-texttable python3-websocket python3-dotenv python3-distro python3-yaml python3-pyrsistent python3-attr python3-requests \
    python3-urllib3 python3-six python3-certifi python3-chardet python3-charset-normalizer python3-idna 2>/dev/null) || skip
  python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "skipped: Debian 12's compose needs Python 3.11"; exit 77; }
  compose() { PYTHONPATH=$packages/usr/lib/python3/dist-packages python3 -c 'from compose.cli.main import main; main()' -f "$folder/compose.yml" "$@"; }
else
  packages=$("$here/../clients/fetch.sh" trixie docker-cli docker-compose 2>/dev/null) || skip
  ln -s "$packages/usr/libexec/docker/cli-plugins/docker-compose" "$folder/config/cli-plugins/docker-compose"
  compose() { "$packages/usr/bin/docker" compose -f "$folder/compose.yml" "$@"; }
fi
"$engine" "$folder/root" "$folder/s" 2>"$folder/log" &
engine_pid=$!
for _ in $(seq 100); do [[ -S $folder/s ]] && break; sleep 0.1; done

cat >"$folder/compose.yml" <<'YAML'
services:
  web:
    image: debian
    command: sh -c 'trap "exit 0" TERM; echo web $$GREETING; while :; do sleep 0.05; done'
    environment: {GREETING: hello}
    labels: {part: front}
    volumes:
      - data:/data
      - ./conf:/conf:ro
      - /var/run/docker.sock:/var/run/docker.sock
      - {type: tmpfs, target: /scratch}
      - {type: volume, source: data, target: /again, read_only: true, volume: {nocopy: true}}
    restart: unless-stopped
    ports: ["8080:80"]
    healthcheck: {test: "true", interval: 1s}
  job:
    image: debian
    command: sh -c 'echo job done'
    depends_on: [web]
  beside:
    image: debian
    command: sh -c 'trap "exit 0" TERM; echo beside; while :; do sleep 0.05; done'
    network_mode: "service:web"
  made:
    build: {context: ./built, args: {WORD: spoken}, labels: {origin: compose}, target: wanted}
    image: ship-made
    profiles: [never]
volumes:
  data: {labels: {kind: kept}}
YAML
mkdir "$folder/built"
printf 'FROM scratch AS other\nCOPY nothing /\nFROM scratch AS wanted\nARG WORD\nENV SAID=$WORD\nCOPY file /\n' >"$folder/built/Dockerfile"
echo file >"$folder/built/file"
inspect_made() { curl -s --unix-socket "$folder/s" http://engine/v1.41/images/ship-made/json; }

# check NAME STATUS PATTERN COMMAND…: as in docker_clients.sh; COMMAND may be the function compose
check() {
  local name=$1 status=$2 pattern=$3 output code
  shift 3
  output=$("$@" 2>&1)
  code=$?
  if [[ $code == "$status" && $output =~ $pattern ]]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'FAILED %s: status %s (wanted %s), output (wanted /%s/):\n%s\n' "$name" "$code" "$status" "$pattern" "$output"
  fi
}

check "config" 0 'GREETING' compose config
check "build" 0 '' compose build made
check "what build made" 0 'SAID=spoken.*"origin":"compose"' inspect_made
check "build again from the cache" 0 '' compose build made
check "up" 0 '' compose up -d
check "ps" 0 'web' compose ps
volumes() { curl -s --unix-socket "$folder/s" http://engine/volumes; }
check "the project's volume" 0 '"kind":"kept"' volumes
check "the job has run" 0 'job done' compose logs job
check "logs" 0 'web hello' compose logs web
check "one in the other's machine" 0 'beside' compose logs beside
check "exec" 5 '^in$' compose exec -T web sh -c 'echo in; exit 5'
check "the engine's socket" 0 '^OK' compose exec -T web curl -s --unix-socket var/run/docker.sock http://engine/_ping
check "up again changes nothing" 0 'up-to-date|Running|Started' compose up -d
check "port" 0 ':8080' compose port web 80
check "stop" 0 '' compose stop -t 2
check "start" 0 '' compose start
check "restart" 0 '' compose restart -t 2 web
check "run" 3 'once' compose run --rm -T --no-deps job sh -c 'echo once; exit 3'
check "down" 0 '' compose down -v -t 2
check "its volume is gone" 0 '"Volumes":\[\]' volumes
check "nothing is left" 0 '^$' compose ps -q

echo "$passed passed, $failed failed"
[[ $failed == 0 ]] || { tail -20 "$folder/log"; exit 1; }
