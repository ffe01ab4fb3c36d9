#!/bin/bash
# usage: docker_clients.sh HULLD-FAKE [FOLDER-OF-DOCKER]
# Real Docker clients (docker, docker-py) against the engine's API, its machines replaced by local
# processes (daemon/testing/local_machine.h), so it runs on any host. Exit 77: no client is there.
set -u
engine=$1
[[ -n ${2:-} ]] && PATH=$2:$PATH
folder=$(mktemp -d /tmp/hull-docker.XXXXXX)
failed=0 passed=0
export DOCKER_HOST=unix://$folder/s DOCKER_CONFIG=$folder/config DOCKER_BUILDKIT=0
mkdir "$folder/config"

finish() {
  [[ -n ${engine_pid:-} ]] && kill "$engine_pid" 2>/dev/null && wait "$engine_pid" 2>/dev/null
  rm -rf "$folder"
}
trap finish EXIT

if ! command -v docker >/dev/null; then
  echo "skipped: no docker client here (Debian: docker.io or docker-cli)"
  exit 77
fi
"$engine" "$folder/root" "$folder/s" 2>"$folder/log" &
engine_pid=$!
for _ in $(seq 100); do docker version >/dev/null 2>&1 && break; sleep 0.1; done

# check NAME STATUS PATTERN COMMAND…: the exit status, and an extended regular expression that the
# whole output (both streams) must match somewhere.
check() {
  local name=$1 status=$2 pattern=$3 output code
  shift 3
  output=$(timeout 60 "$@" 2>&1)
  code=$?
  if [[ $code =~ ^($status)$ && $output =~ $pattern ]]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'FAILED %s: status %s (wanted %s), output (wanted /%s/):\n%s\n' "$name" "$code" "$status" "$pattern" "$output"
  fi
}

check "version" 0 'Server: Hull' docker version
check "info" 0 'Storage Driver: hull' docker info
check "run prints" 0 '^hello$' docker run --rm debian echo hello
check "run keeps both streams and the exit code" 7 $'out\nerr' docker run --rm debian sh -c 'echo out; sleep 0.1; echo err >&2; exit 7'
check "input reaches the process and ends" 0 '^abc$' bash -c 'echo abc | docker run --rm -i debian cat'
check "large output is complete" 0 '^3000000$' bash -c 'docker run --rm debian head -c 3000000 /dev/zero | wc -c'
check "large input is complete" 0 '^3000000$' bash -c 'head -c 3000000 /dev/zero | docker run --rm -i debian wc -c'
check "short runs lose nothing" 0 '^20$' bash -c 'for i in $(seq 20); do docker run --rm debian echo x; done | grep -c x'
check "the engine's socket in a container" 0 '^OK$' docker run --rm -v /var/run/docker.sock:/var/run/docker.sock debian curl -s --unix-socket var/run/docker.sock http://engine/_ping
check "and a client there" 0 '^from inside$' docker run --rm --mount "type=bind,source=$folder/s,target=/s" debian env DOCKER_HOST=unix://s "$(command -v docker)" run --rm debian echo from inside
check "missing program" 127 'executable file not found' docker run --rm debian nosuchprogram
# 20.10 knows no 126 for a directory, and asks the engine less about a file that is not there.
check "not a program" '125|126' 'is a directory' docker run --rm debian /etc
check "unknown image" 125 'nosuchimage' docker run --rm localhost:1/nosuchimage true
check "host network is refused" 125 'publish its ports' docker run --rm --network host debian true
check "terminal" 0 '/dev/pts' docker run --rm -t debian tty
check "detached" 0 '^[0-9a-f]{64}$' docker run -d --name web -p 8080:80 -e X=1 -l a=b debian sh -c 'trap "exit 3" TERM; echo started; while :; do sleep 0.05; done'
check "name in use" 125 'already in use' docker run -d --name web debian true
check "port in use" 125 'port is already allocated' docker run --rm -p 8080:80 debian true
check "ps" 0 'web' docker ps --filter label=a=b --filter name=web
check "ps filter" 0 '^$' docker ps -q --filter label=a=c
check "port" 0 '80/tcp -> 0.0.0.0:8080' docker port web
check "logs" 0 '^started$' docker logs web
check "logs with times" 0 '^20[0-9-]*T[0-9:.]*Z started$' docker logs -t --tail 1 web
check "exec" 5 'in 1' docker exec web sh -c 'echo in $X; exit 5'
check "exec with input" 0 '^zz$' bash -c 'echo zz | docker exec -i web cat'
check "exec of nothing" 127 'executable file not found' docker exec web nosuch
check "inspect" 0 '^running 172.17.0.*1.*b$' docker inspect -f '{{.State.Status}} {{.NetworkSettings.IPAddress}} {{index .Config.Env 0}} {{.Config.Labels.a}}' web
echo content >"$folder/f"
check "cp into a running container" 0 '' docker cp "$folder/f" web:/etc/f
check "cp out of it" 0 'content' bash -c "docker cp web:/etc/f - | tar -xO"
check "cp of nothing" 1 'Could not find the file|No such container:path' docker cp web:/nosuch -
check "diff" 0 '/etc/f' docker diff web
check "commit" 0 'sha256:' docker commit web mine:1
check "limits are updated" 0 'web' docker update --cpus 0.5 --pids-limit 50 --restart always web
check "and shown" 0 '^500000000 50 always$' docker inspect -f '{{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}} {{.HostConfig.RestartPolicy.Name}}' web
check "more than its machine has" 1 'stop the container, update it' docker update --cpus 60 web
check "pause" 0 'web' docker pause web
check "paused exec is refused" 1 'is paused' docker exec web true
check "unpause" 0 'web' docker unpause web
check "stats" 0 'web .*12MiB / 512MiB' docker stats --no-stream
check "stats of one" 0 '2.34%' docker stats --no-stream --format '{{.MemPerc}}' web
check "top" 0 'main' docker top web
check "rename" 0 '' docker rename web web2
check "remove a running one" 1 'stop the container before removing' docker rm web2
check "stop" 0 'web2' docker stop web2
check "its exit code" 0 'Exited \(3\)' docker ps -a
check "start again, kill, wait" 0 '137' bash -c 'docker start web2 && docker kill web2 && docker wait web2'
check "remove" 0 'web2' docker rm web2
check "cp before the start" 0 'content' bash -c "docker create --name early debian cat etc/g && docker cp $folder/f early:/etc/g && docker start -a early && docker rm early"
check "save" 0 '' docker save -o "$folder/save.tar" mine:1
check "rmi" 0 'Deleted' docker rmi mine:1
check "load" 0 'Loaded image: mine:1' docker load -i "$folder/save.tar"
check "tag and history" 0 'ADD rootfs' bash -c 'docker tag mine:1 mine:2 && docker history mine:2'
check "import" 0 'sha256:' bash -c "tar -C $folder -c f | docker import -c 'CMD [\"true\"]' - imported:1"
mkdir "$folder/context"
printf 'FROM debian\nCOPY a /a\nENV X=1\nCMD ["true"]\n' >"$folder/context/Dockerfile"
echo A >"$folder/context/a"
check "build" 0 'Successfully tagged built:1' docker build -t built:1 "$folder/context"
check "build --cache-from an image, its steps forgotten" 0 'Using cache' \
  bash -c "docker builder prune -f >/dev/null && docker build --cache-from built:1 -t built:2 $folder/context"
check "build with nothing to take from" 0 'not cached' \
  bash -c "docker builder prune -f >/dev/null && docker build -t built:3 $folder/context | grep -q 'Using cache' || echo not cached"
printf 'FROM debian\nNONSENSE\n' >"$folder/context/Bad"
check "build error" 1 'NONSENSE' docker build -f "$folder/context/Bad" "$folder/context"
check "images" 0 'built' docker images
check "volume create" 0 '^data$' docker volume create --label a=b data
check "volume's bad name" 1 'includes invalid characters for a local volume name' docker volume create a/b
check "volume driver" 1 'plugin "nfs" not found' docker volume create -d nfs other
check "volume inspect" 0 '^local /.*/volumes/data/_data map\[a:b\]$' docker volume inspect data -f '{{.Driver}} {{.Mountpoint}} {{.Labels}}'
check "volume filter" 0 '^data$' docker volume ls -q --filter label=a=b --filter dangling=true
check "mounts" 0 '^[0-9a-f]{64}$' docker create --name mounted -v data:/data:ro -v "$folder:/host" --mount type=tmpfs,target=/t,tmpfs-size=1m -v /own debian true
check "inspect shows mounts" 0 'bind .* /host true|volume data /data false' docker inspect mounted -f '{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}};{{end}}'
check "ps by volume" 0 '^mounted$' docker ps -a --filter volume=data --format '{{.Names}}'
check "volume in use" 1 'volume is in use - \[[0-9a-f]{64}\]' docker volume rm data
check "volumes-from" 0 '^[0-9a-f]{64}$' docker create --name borrower --volumes-from mounted debian true
check "missing source of a mount" 125 'bind source path does not exist: /no/such' docker run --rm --mount type=bind,source=/no/such,target=/x debian true
check "bad mode" 125 'invalid mode: sideways' docker run --rm -v data:/x:sideways debian true
check "two at one place" 125 'Duplicate mount point: /x' docker run --rm -v data:/x -v "$folder:/x" debian true
check "rm of both" 0 'mounted' docker rm -v mounted borrower
check "own volumes are gone" 0 '^data$' docker volume ls -q
check "volume prune" 0 'Total reclaimed space' docker volume prune -f
check "volume rm" 0 '^data$' docker volume rm -f data
check "no volume" 1 '[Nn]o such volume' docker volume inspect data
check "networks" 0 '172.17.0.1' docker network inspect bridge -f '{{(index .IPAM.Config 0).Gateway}}'
check "network create" 0 '^[0-9a-f]{64}$' docker network create --subnet 10.9.0.0/24 --label a=b app
check "network's name in use" 1 'already exists' docker network create app
check "network filter" 0 '^app$' docker network ls --filter label=a=b --format '{{.Name}}'
check "member" 0 '^[0-9a-f]{64}$' docker run -d --name member --network app --network-alias www debian sh -c 'while :; do sleep 0.05; done'
check "member's address" 0 '^10.9.0.2$' docker inspect -f '{{.NetworkSettings.Networks.app.IPAddress}}' member
check "network connect" 0 '^$' docker network connect bridge member
check "members" 0 '^member$' docker network inspect app -f '{{range .Containers}}{{.Name}}{{end}}'
check "network in use" 1 'active endpoints' docker network rm app
check "network disconnect" 0 '^$' docker network disconnect app member
check "network rm" 0 '^app$' docker network rm app
check "member rm" 0 '^member$' docker rm -f member
check "events" 0 'container (create|start|die)' bash -c 'docker run --rm debian true; docker events --since 10s --until 0s'
check "healthy" 0 '^healthy$' bash -c "docker run -d --name hc --health-cmd true --health-interval 100ms debian sleep 100 >/dev/null && until docker ps --filter health=healthy --format x | grep -q x; do sleep 0.1; done; docker inspect -f '{{.State.Health.Status}}' hc"
check "health in ps" 0 '\(healthy\)' docker ps --filter name=hc
# The state is seen before the event is published.
check "its events" 0 'health_status: healthy' bash -c "until docker events --since 60s --until 0s --filter container=hc | grep 'health_status: healthy'; do sleep 0.1; done"
check "its end" 0 'hc' docker rm -f hc
check "log limits" 0 '^b$' bash -c "docker run --rm --log-opt max-size=1k --log-opt max-file=2 debian echo b"
check "unknown log option" 125 'unknown log opt' docker run --rm --log-opt nosuch=1 debian true
check "no log" 1 'does not support reading' bash -c "docker run --name nolog --log-driver none debian echo x; docker logs nolog; code=\$?; docker rm nolog >/dev/null; exit \$code"
check "restarts give up" 0 '^1 2$' bash -c "docker run -d --name re --restart on-failure:2 debian sh -c 'exit 1' >/dev/null; docker wait re >/dev/null; until [[ \$(docker inspect -f '{{.State.Status}}' re) == exited ]]; do sleep 0.1; done; docker inspect -f '{{.State.ExitCode}} {{.RestartCount}}' re; docker rm re >/dev/null"
check "options are accepted" 0 '^ok$' docker run --rm --init --sysctl net.core.somaxconn=9 --ulimit nofile=99 --shm-size 8m --cap-drop all --security-opt no-new-privileges --oom-score-adj 5 --group-add 5 --tmpfs /scratch --storage-opt size=1g debian echo ok
check "a host device is refused" 125 'no device of the host' docker run --rm --device /dev/sda debian true
check "wait conditions" 0 '^4$' bash -c "docker run -d --name ww debian sh -c 'sleep 0.3; exit 4' >/dev/null; docker wait ww; docker rm ww >/dev/null"
check "prune of containers" 0 'Deleted Containers' bash -c "docker create debian true >/dev/null; docker container prune -f"
check "df" 0 'Images' docker system df
check "prune" 0 'Total reclaimed space' docker system prune -f
check "swarm" 1 'not a swarm manager' docker service ls

if python3 -c 'import docker' 2>/dev/null; then
  check "docker-py" 0 '^hello b.in' python3 - <<'PYTHON'
import docker
client = docker.from_env(timeout=30)
for _ in range(10):
    assert client.containers.run("debian", ["echo", "hello"], remove=True) == b"hello\n"
box = client.containers.run("debian", ["sh", "-c", "echo up; exec sleep 100"], detach=True, labels={"k": "v"})
assert client.containers.list(filters={"label": "k=v"})[0].id == box.id
code, out = box.exec_run(["echo", "in"])
socket = client.api.attach_socket(box.id, params={"stdout": 1, "logs": 1, "stream": 1})
assert socket.read(8)[-1] == 3 and socket.read(3) == b"up\n"
box.stop(timeout=0)
assert box.wait()["StatusCode"] in (137, 143)
assert box.logs() == b"up\n"
box.remove()
print("hello", out, code)
PYTHON
  check "docker-py builds" 0 '^spoken py$' python3 - "$folder/context" <<'PYTHON'
import docker, io, sys
client = docker.from_env(timeout=30)
with open(sys.argv[1] + "/Py", "w") as file:
    file.write("FROM debian AS wanted\nARG WORD\nLABEL said=$WORD\nCOPY a /a\nFROM debian\nCOPY nothing /\n")
image, log = client.images.build(path=sys.argv[1], dockerfile="Py", tag="py:1", buildargs={"WORD": "spoken"}, labels={"by": "py"}, target="wanted", rm=True)
assert any("Successfully built" in line.get("stream", "") for line in log)
assert image.id == client.images.get("py:1").id
try:
    client.images.build(fileobj=io.BytesIO(b"FROM debian\nNONSENSE\n"))
    raise SystemExit("a wrong Dockerfile was built")
except (docker.errors.BuildError, docker.errors.APIError) as error:
    assert "NONSENSE" in str(error), error
assert "CachesDeleted" in client.api.prune_builds()
print(image.labels["said"], image.labels["by"])
PYTHON
else
  echo "skipped: docker-py is not here (Debian: python3-docker)"
fi

echo "$passed passed, $failed failed"
[[ $failed == 0 ]] || { tail -20 "$folder/log"; exit 1; }
