#!/bin/bash
# usage: command.sh HULLD-FAKE HULL
# What `hull` says of itself: help, completions, man pages, contexts, and its smaller verbs. The engine's machines are local processes, so it runs on any host.
set -u
engine=$1 hull=$2
folder=$(mktemp -d /tmp/hull-command.XXXXXX)
failed=0 passed=0
export HULL_CONFIG=$folder/config HULL_HOST=unix://$folder/s

finish() {
  [[ -n ${engine_pid:-} ]] && kill "$engine_pid" 2>/dev/null && wait "$engine_pid" 2>/dev/null
  rm -rf "$folder"
}
trap finish EXIT

# check NAME STATUS PATTERN COMMAND…: as in docker_clients.sh
check() {
  local name=$1 status=$2 pattern=$3 output code
  shift 3
  output=$(timeout 60 "$@" 2>&1)
  code=$?
  if [[ $code == "$status" && $output =~ $pattern ]]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'FAILED %s: status %s (wanted %s), output (wanted /%s/):\n%s\n' "$name" "$code" "$status" "$pattern" "$output"
  fi
}

"$engine" "$folder/root" "$folder/s" 2>"$folder/log" &
engine_pid=$!
for _ in $(seq 100); do "$hull" version >/dev/null 2>&1 && break; sleep 0.1; done

check "TCP needs a certificate" 1 'HULL_CERT_PATH' env HULL_HOST=tcp://127.0.0.1:1 "$hull" ps
check "stats" 0 'CPU %.* st ' bash -c "$hull run -d --name st debian sleep 60 >/dev/null; $hull stats --no-stream; $hull rm -f st >/dev/null"
check "contexts" 0 '^lab$' "$hull" context create lab --host "unix://$folder/s" --description "The lab"
check "a context's name is taken" 1 'already exists' "$hull" context create lab --host unix:///x
check "a context's engine" 0 'Server: Hull' env -u HULL_HOST "$hull" --context lab version
check "another one by default" 0 'Server: Hull' bash -c "$hull context use lab && env -u HULL_HOST $hull version"
check "contexts are listed" 0 'lab \* +The lab +unix://' "$hull" context ls
check "the current one stays" 1 'in use' "$hull" context rm lab
check "unless forced" 0 'lab' "$hull" context rm -f lab
check "a bad endpoint" 1 'expected' "$hull" context create bad --host ftp://x
check "dial-stdio" 0 'HTTP/1.1 200 OK' bash -c "printf 'GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' | $hull system dial-stdio"


check "help fits a screen" 0 'Common commands:.*run .*Management:' "$hull" --help
lines=$("$hull" --help | wc -l)
check "and is short" 0 '^yes$' bash -c "(( $lines < 75 )) && echo yes"
check "a verb's help has examples" 0 'Examples:.*hull run -it debian bash' "$hull" run --help
check "a group's help" 0 'Commands:.*dial-stdio.*prune' "$hull" system --help
check "suggestions" 125 'did you mean run' "$hull" rnu
for shell in bash zsh fish; do check "completion for $shell" 0 '__complete' "$hull" completion $shell; done
check "bash takes it" 0 '^$' bash -nc "$("$hull" completion bash)"
check "no other shell" 1 'there are bash, zsh and fish' "$hull" completion tcsh
"$hull" create --name live debian true >/dev/null
check "verbs are completed" 0 $'^run\t' "$hull" __complete -- ru
check "options too" 0 '^--memory' "$hull" __complete -- run --memo
check "live names" 0 '^live$' "$hull" __complete -- rm l
check "images of run" 0 '^debian:latest$' "$hull" __complete -- run deb
check "nothing behind the image" 0 '^$' "$hull" __complete -- run debian x
check "man pages" 0 '^hull-run.1$' bash -c "$hull __man $folder/man && { ! command -v man >/dev/null || man -l $folder/man/hull-run.1 >/dev/null; } && ls $folder/man | grep -x hull-run.1"
check "a page has the examples" 0 'hull exec' cat "$folder/man/hull-exec.1"

check "no container" 1 'No such container' "$hull" stop nosuch
check "diff" 0 '^C /etc$' "$hull" diff live
check "events since" 0 'container create' "$hull" events --since 1m --until 0s --filter type=container
check "df" 0 'Images .*Containers' "$hull" system df
check "prune asks" 0 'Are you sure' bash -c "echo n | $hull system prune"
check "prune" 0 'Total reclaimed space' "$hull" system prune -f

echo "$passed passed, $failed failed"
[[ $failed == 0 ]] || { tail -20 "$folder/log"; exit 1; }
