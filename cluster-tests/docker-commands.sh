#!/usr/bin/env bash
# Debian's docker command against a manager's socket: each command with its exit code and its output asserted.
# usage: DOCKER_HOST=unix://SOCKET docker-commands.sh IMAGE_TAR ROOTFS_TAR WORKER_NAME   (a swarm of at least one manager and the worker WORKER_NAME)
set -u
image_tar=$1 rootfs_tar=$2 worker=$3
passed=0 failed=0 out=''

# expect CODE REGEX COMMAND...: runs it; its output (both streams) must match the extended REGEX, '' for none.
expect() {
  local code=$1 pattern=$2 got; shift 2
  out=$("$@" 2>&1); got=$?
  if [ "$got" != "$code" ]; then failed=$((failed+1)); printf 'FAILED %s\n  exit %s, not %s\n%s\n' "$*" "$got" "$code" "$out"; return 1; fi
  if ! grep -Eq -- "$pattern" <<<"$out"; then failed=$((failed+1)); printf 'FAILED %s\n  output does not match: %s\n%s\n' "$*" "$pattern" "$out"; return 1; fi
  passed=$((passed+1))
}
# eventually REGEX COMMAND...: looks again for at most 20 s until the output matches; then asserts it.
eventually() {
  local pattern=$1; shift
  for _ in $(seq 100); do out=$("$@" 2>&1) && grep -Eq -- "$pattern" <<<"$out" && break; sleep 0.2; done
  expect 0 "$pattern" "$@"
}
id='^[0-9a-z]{25}$'

# --- the engine
expect 0 'API version: +1\.[0-9]+' docker version
expect 0 '^[0-9.]+' docker version --format '{{.Server.Version}}'
expect 0 'Swarm: active' docker info
expect 0 '^true active$' docker info --format '{{.Swarm.ControlAvailable}} {{.Swarm.LocalNodeState}}'

# --- images
expect 0 'Loaded image: busybox:latest' docker load -i "$image_tar"
expect 0 '^sha256:[0-9a-f]{64}$' docker import "$rootfs_tar" imported:v1
expect 0 'busybox +latest' docker images
expect 0 'imported +v1' docker image ls
expect 0 '^sha256:[0-9a-f]{64}$' docker image inspect --format '{{.Id}}' busybox
expect 1 'No such image: nothing:latest' docker image inspect nothing
expect 0 'Untagged: imported:v1' docker image rm imported:v1
expect 1 'No such image: imported:v1' docker rmi imported:v1
expect 1 'invalid reference format' docker image inspect 'UPPER CASE'
printf 'not a tar' > /tmp/shoal-broken.$$
expect 1 '.' docker load -i /tmp/shoal-broken.$$
rm -f /tmp/shoal-broken.$$

# --- swarm
expect 1 'This node is already part of a swarm' docker swarm init
expect 1 'This node is already part of a swarm' docker swarm join --token SWMTKN-1-x 127.0.0.1:2377
expect 0 'SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}' docker swarm join-token worker
expect 0 '^SWMTKN-1-' docker swarm join-token -q manager
before=$(docker swarm join-token -q worker)
expect 0 'Successfully rotated worker join token' docker swarm join-token --rotate worker
expect 0 '^SWMTKN-1-' docker swarm join-token -q worker
[ "$out" != "$before" ] && passed=$((passed+1)) || { failed=$((failed+1)); echo "FAILED the worker token did not change"; }
expect 0 'Swarm updated' docker swarm update --task-history-limit 3
expect 0 'Task History Retention Limit: 3' docker info
expect 1 'participating as a manager' docker swarm leave
expect 1 'not supported yet' docker swarm update --autolock=true

# --- nodes
expect 0 "$worker +Ready +Active" docker node ls
expect 0 'Leader' docker node ls
expect 0 "^$worker$" docker node inspect --format '{{.Description.Hostname}}' "$worker"
expect 0 'Role:[[:space:]]+Worker' docker node inspect --pretty "$worker"
expect 0 "^$worker$" docker node update --label-add zone=east "$worker"
expect 0 '^east$' docker node inspect --format '{{.Spec.Labels.zone}}' "$worker"
expect 0 "$worker" docker node ls --filter node.label=zone=east
expect 1 "is not down and can't be removed" docker node rm "$worker"
expect 1 'node nowhere not found|No such node: nowhere' docker node inspect nowhere
expect 1 'demote the last manager' docker node demote self
expect 0 '.' docker node ps self
expect 0 "^$worker$" docker node update --availability drain "$worker"
expect 0 "$worker +Ready +Drain" docker node ls
expect 0 "^$worker$" docker node update --availability active "$worker"

# --- networks
expect 0 "$id" docker network create -d overlay front
expect 1 'network with name front already exists' docker network create -d overlay front
expect 0 'front +overlay +swarm' docker network ls
expect 0 '^overlay 10\.' docker network inspect --format '{{.Driver}} {{(index .IPAM.Config 0).Subnet}}' front
expect 0 "$id" docker network create -d overlay --subnet 10.200.0.0/24 --label team=a back
expect 0 '^10.200.0.0/24$' docker network inspect --format '{{(index .IPAM.Config 0).Subnet}}' back
expect 1 'overlap' docker network create -d overlay --subnet 10.200.0.0/25 clash
expect 1 'invalid|prefix|subnet' docker network create -d overlay --subnet 10.300.0.0/24 bad
expect 0 'back' docker network ls --filter label=team=a
expect 0 '^back$' docker network rm back
expect 1 'network back not found|No such network' docker network inspect back

# --- services
expect 0 "$id" docker service create -d --no-resolve-image --name web --replicas 2 --network front --env A=1 --label tier=front busybox sleep 1d
expect 1 'name conflicts with an existing object' docker service create -d --no-resolve-image --name web busybox sleep 1d
expect 1 'DNS name component|name' docker service create -d --no-resolve-image --name 'bad name' busybox sleep 1d
expect 1 'network nowhere not found' docker service create -d --no-resolve-image --name x --network nowhere busybox sleep 1d
expect 1 'published ports are not supported yet' docker service create -d --no-resolve-image --name x --publish 80:80 busybox sleep 1d
expect 1 'invalid reference format' docker service create -d --no-resolve-image --name x 'BAD IMAGE' sleep 1d
eventually 'web +replicated +2/2 +busybox:latest' docker service ls
expect 0 'web\.1 .*Running +Running' docker service ps web
expect 0 'web\.2 .*Running' docker service ps --no-trunc web
expect 0 '^2$' docker service inspect --format '{{.Spec.Mode.Replicated.Replicas}}' web
expect 0 'Service Mode:[[:space:]]+Replicated' docker service inspect --pretty web
expect 0 'web scaled to 3' docker service scale -d web=3
eventually 'web +replicated +3/3' docker service ls --filter name=web
expect 0 '^web$' docker service update -d --no-resolve-image --update-parallelism 0 --env-add B=2 web
eventually 'B=2' docker service inspect --format '{{.Spec.TaskTemplate.ContainerSpec.Env}}' web
eventually '^completed$' docker service inspect --format '{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}' web
expect 0 'web' docker service rollback -d web
eventually '^\[A=1\]$' docker service inspect --format '{{.Spec.TaskTemplate.ContainerSpec.Env}}' web
expect 1 'service nothing not found|No such service: nothing' docker service inspect nothing
expect 1 'service nothing not found' docker service scale -d nothing=2
expect 1 'in use by (service|task)' docker network rm front
expect 0 "$id" docker service create -d --no-resolve-image --name all --mode global busybox sleep 1d
eventually 'all +global +([0-9]+)/\1 ' docker service ls
expect 0 "$id" docker service create -d --no-resolve-image --name talk --restart-condition none busybox sh -c 'echo hello; echo trouble >&2'
eventually 'Complete' docker service ps talk
expect 0 'talk\.1\.[0-9a-z]+@.*\| hello' docker service logs talk
expect 0 '^hello$' docker service logs --raw talk
expect 0 "$id" docker service create -d --no-resolve-image --name pinned --constraint "node.hostname==$worker" busybox sleep 1d
eventually "$worker +Running +Running" docker service ps pinned
expect 0 "$id" docker service create -d --no-resolve-image --name nowhere --constraint 'node.labels.zone==mars' busybox sleep 1d
eventually 'no suitable node \(scheduling constraints not satisfied' docker service ps --no-trunc nowhere
expect 0 "$id" docker service create -d --no-resolve-image --name ghost --restart-condition none no-such-image:1 sleep 1d
eventually 'No such image: no-such-image:1' docker service ps --no-trunc ghost
expect 0 'pinned' docker node ps "$worker"

# --- containers of this node
eventually 'web\.[0-9]+\.|all\.' docker ps
container=$(docker ps -q | head -1)
expect 0 'sleep 1d' docker top "$container"
expect 0 '^running true$' docker inspect --format '{{.State.Status}} {{.State.Running}}' "$container"
expect 0 '' docker logs "$container"
expect 1 'No such (object|container)' docker inspect no-such-thing
expect 1 'No such container: no-such-thing' docker logs no-such-thing

# --- the end of them
expect 0 'web' docker service rm web all talk pinned nowhere ghost
expect 1 'service web not found' docker service rm web
for _ in $(seq 100); do [ -z "$(docker ps -q)" ] && docker network rm front >/dev/null 2>&1 && break; sleep 0.2; done
expect 1 'network front not found' docker network rm front
expect 0 '^$|NAME' docker service ls -q

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
