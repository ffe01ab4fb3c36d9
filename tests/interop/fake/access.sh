#!/bin/bash
# usage: access.sh HULLD-FAKE HULL
# The ways to an engine: TCP with mutual TLS and nothing else, contexts, metrics, completions, and
# what `hull` says of itself. The engine's machines are local processes, so it runs on any host.
set -u
engine=$1 hull=$2
folder=$(mktemp -d /tmp/hull-access.XXXXXX)
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

authority() {  # NAME
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$1" -keyout "$folder/$1.key" -out "$folder/$1.pem" 2>/dev/null
}
identity() {  # FOLDER AUTHORITY EXTENSION
  mkdir "$folder/$1"
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$folder/$1/key.pem" -out "$folder/$1/csr" 2>/dev/null
  openssl x509 -req -days 2 -in "$folder/$1/csr" -CA "$folder/$2.pem" -CAkey "$folder/$2.key" -CAcreateserial -extfile <(echo "$3") -out "$folder/$1/cert.pem" 2>/dev/null
  cp "$folder/ca.pem" "$folder/$1/ca.pem"
}
authority ca
authority other
identity server ca "subjectAltName=IP:127.0.0.1"
identity client ca "extendedKeyUsage=clientAuth"
identity stranger other "extendedKeyUsage=clientAuth"

check "TCP without TLS is refused" 1 'only with mutual TLS' "$engine" "$folder/refused" "$folder/r" --tcp 127.0.0.1:0
"$engine" "$folder/root" "$folder/s" --tcp 127.0.0.1:0 --tls "$folder/server" --metrics 127.0.0.1:0 2>"$folder/log" &
engine_pid=$!
for _ in $(seq 100); do "$hull" version >/dev/null 2>&1 && break; sleep 0.1; done
address=$(sed -n 's|.*listening on tcp://\([^ ]*\).*|\1|p' "$folder/log")
metrics=$(sed -n 's|.*metrics at \(http[^ ]*\).*|\1|p' "$folder/log")

check "the client's certificate opens" 0 'Server: Hull' env HULL_HOST=tcp://$address HULL_CERT_PATH=$folder/client "$hull" version
check "attached over TLS" 3 $'^in\nout$' bash -c "echo in | HULL_HOST=tcp://$address HULL_CERT_PATH=$folder/client $hull run --rm -i debian sh -c 'cat; echo out; exit 3'"
check "large output over TLS" 0 '^3000000$' bash -c "HULL_HOST=tcp://$address HULL_CERT_PATH=$folder/client $hull run --rm debian head -c 3000000 /dev/zero | wc -c"
check "a stranger's does not" 1 'talk to the engine|TLS|alert' env HULL_HOST=tcp://$address HULL_CERT_PATH=$folder/stranger "$hull" ps
check "none does not" 1 'HULL_CERT_PATH' env HULL_HOST=tcp://$address "$hull" ps
check "plain HTTP gets nothing" 0 '^$' bash -c "! curl -sf http://$address/version"
check "curl with the certificate" 0 'ApiVersion' curl -sf --cacert "$folder/ca.pem" --cert "$folder/client/cert.pem" --key "$folder/client/key.pem" "https://$address/version"
if command -v docker >/dev/null; then
  check "docker over TLS" 0 'Server: Hull' docker --tlsverify --tlscacert "$folder/ca.pem" --tlscert "$folder/client/cert.pem" --tlskey "$folder/client/key.pem" -H "tcp://$address" version
fi
check "contexts" 0 '^lab$' "$hull" context create lab --host "tcp://$address" --tls "$folder/client" --description "The lab"
check "a context's name is taken" 1 'already exists' "$hull" context create lab --host unix:///x
check "a context's engine" 0 'Server: Hull' env -u HULL_HOST "$hull" --context lab version
check "another one by default" 0 'Server: Hull' bash -c "$hull context use lab && env -u HULL_HOST $hull version"
check "contexts are listed" 0 'lab \* +The lab +tcp://' "$hull" context ls
check "the current one stays" 1 'in use' "$hull" context rm lab
check "unless forced" 0 'lab' "$hull" context rm -f lab
check "a bad endpoint" 125 'expected' "$hull" context create bad --host ftp://x
check "dial-stdio" 0 'HTTP/1.1 200 OK' bash -c "printf 'GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' | $hull system dial-stdio"

check "metrics" 0 'hull_containers\{state="running"\} 0.*hull_api_requests_total\{code="2xx"\} [1-9]' curl -sf "$metrics"
check "and nothing else there" 22 '' curl -sf "${metrics%/metrics}/containers/json"
check "requests have ids" 0 'X-Request-Id: [0-9a-f]{12}' curl -si --unix-socket "$folder/s" http://x/_ping

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
check "update" 0 '^live$' "$hull" update --restart always live
check "update of nothing" 1 'one or more flags' "$hull" update live
check "diff" 0 '^C /etc$' "$hull" diff live
check "stats" 0 '12MiB / 512MiB' bash -c "$hull run -d --name st debian sleep 60 >/dev/null; $hull stats --no-stream; $hull rm -f st >/dev/null"
check "health options" 0 '"Interval":1500000000.*"Retries":4' bash -c "$hull create --name hc --health-cmd true --health-interval 1.5s --health-retries 4 debian >/dev/null; $hull inspect -f '{{json .Config.Healthcheck}}' hc; $hull rm hc >/dev/null"
check "a bad duration" 125 'no duration' "$hull" create --health-interval 5x debian
check "events since" 0 'container create' "$hull" events --since 1m --until 0s --filter type=container
check "df" 0 'Images .*Containers' "$hull" system df
check "df -v" 0 'REPOSITORY .*UNIQUE SIZE.*debian .*CONTAINER ID .*VOLUME NAME .*Build cache usage: ' "$hull" system df -v
check "prune asks" 0 'Are you sure' bash -c "echo n | $hull system prune"
check "prune" 0 'Total reclaimed space' "$hull" system prune -f

echo "$passed passed, $failed failed"
[[ $failed == 0 ]] || { tail -20 "$folder/log"; exit 1; }
