#!/usr/bin/env bash
# The docker command against a manager's socket: each command with its exit code and its output asserted.
# usage: [DOCKER=/usr/bin/docker] DOCKER_HOST=unix://SOCKET docker-commands.sh MANAGER WORKER WORKER_SOCKET FOLDER
#   a swarm of the manager MANAGER and the worker WORKER that nothing else uses; FOLDER, which both can see, holds image.tar (docker save's form,
#   busybox:latest) and rootfs.tar. It leaves the swarm as it found it, but for a new node id of WORKER.
set -u
client=${DOCKER:-docker} manager=$1 worker=$2 worker_socket=$3 folder=$4
passed=0 failed=0 out=''
# Longest that one command may take, in seconds.
limit=60
docker() { timeout "$limit" "$client" "$@"; }
# on_worker ARGS...: docker against the worker's socket.
on_worker() { DOCKER_HOST="unix://$worker_socket" docker "$@"; }

# expect CODE REGEX COMMAND...: runs it; its output (both streams) must match the extended REGEX.
expect() {
  local code=$1 pattern=$2 got; shift 2
  out=$("$@" 2>&1 </dev/null); got=$?
  judge "$code" "$pattern" "$got" "$*"
}
judge() {
  local code=$1 pattern=$2 got=$3 command=$4
  if [ "$got" != "$code" ]; then failed=$((failed+1)); printf 'FAILED %s\n  exit %s, not %s\n%s\n' "$command" "$got" "$code" "$out"; return 1; fi
  if ! grep -Eq -- "$pattern" <<<"$out"; then failed=$((failed+1)); printf 'FAILED %s\n  output does not match: %s\n%s\n' "$command" "$pattern" "$out"; return 1; fi
  passed=$((passed+1))
}
# eventually REGEX COMMAND...: looks again for at most 30 s until it succeeds and its output matches; asserts the last look.
eventually() {
  local pattern=$1 got end=$((SECONDS+30)); shift
  while :; do
    out=$("$@" 2>&1 </dev/null); got=$?
    { [ $got = 0 ] && grep -Eq -- "$pattern" <<<"$out"; } || [ $SECONDS -ge $end ] && break
    sleep 0.1
  done
  judge 0 "$pattern" "$got" "$*"
}
id='^[0-9a-z]{25}$'
create=(docker service create -d --no-resolve-image)
update=(docker service update -d --no-resolve-image)
# A task that runs until it is told to stop, and stops at once.
stay=(sh -c 'trap "exit 0" TERM; sleep 1d & wait')
# value FORMAT SERVICE: one field of a service, as JSON.
value() { docker service inspect --format "{{json .Spec.$1}}" "$2"; }
task_of() { docker service ps -q --filter desired-state=running "$1" | head -1; }
# sees REGEX SERVICE: what the newest task of the service says of itself (see.sh below) matches.
report() { local said; said=$(docker service logs --raw "$(task_of "$1")") && grep -q '^the end$' <<<"$said" && echo "$said"; }
sees() { eventually "$1" report "$2"; }
# changed ARGS...: docker service update of the probe, waited for until its tasks are replaced.
changed() {
  expect 0 '^probe$' "${update[@]}" "$@" probe
  eventually '^completed$' docker service inspect --format '{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}' probe
}

# --- the engine
began=$(date +%s)
expect 0 'API version: +1\.[0-9]+' docker version
expect 0 '^[0-9.]+' docker version --format '{{.Server.Version}}'
expect 0 'Swarm: active' docker info
expect 0 '^true active$' docker info --format '{{.Swarm.ControlAvailable}} {{.Swarm.LocalNodeState}}'
expect 0 '^2 1$' docker info --format '{{.Swarm.Nodes}} {{.Swarm.Managers}}'
expect 0 '^active false$' on_worker info --format '{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}'
expect 0 'Images' docker system df

# --- images
expect 0 'Loaded image: busybox:latest' docker load -i "$folder/image.tar"
expect 0 'Loaded image: busybox:latest' on_worker load -i "$folder/image.tar"
expect 0 '^sha256:[0-9a-f]{64}$' docker import "$folder/rootfs.tar" imported:v1
expect 0 'busybox +latest' docker images
expect 0 'imported +v1' docker image ls
expect 0 '^imported$' docker images --filter 'reference=imp*' --format '{{.Repository}}'
expect 0 '^sha256:[0-9a-f]{64}$' docker images -q --no-trunc busybox
expect 0 '^sha256:[0-9a-f]{64}$' docker image inspect --format '{{.Id}}' busybox
expect 0 '^linux \[sh\]$' docker inspect --type image --format '{{.Os}} {{.Config.Cmd}}' busybox:latest
expect 0 'IMAGE +CREATED +CREATED BY' docker history busybox
expect 0 '^$' docker tag busybox copy:v2
expect 0 'Untagged: copy:v2' docker rmi copy:v2
expect 1 'No such image: nothing' docker image inspect nothing
expect 1 'No such image: nothing:latest' docker tag nothing copy:v3
expect 0 'Untagged: imported:v1' docker image rm imported:v1
expect 1 'No such image: imported:v1' docker rmi imported:v1
expect 1 'invalid reference format' docker image inspect 'UPPER CASE'
expect 1 "invalid filter 'bogus'" docker images --filter bogus=1
printf 'not a tar' > "$folder/broken.tar"
expect 1 'invalid tar|not a tar|archive' docker load -i "$folder/broken.tar"

# --- swarm
expect 1 'This node is already part of a swarm' docker swarm init
expect 1 'This node is already part of a swarm' docker swarm join --token SWMTKN-1-x 127.0.0.1:2377
expect 0 'SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}' docker swarm join-token worker
expect 0 '^SWMTKN-1-' docker swarm join-token -q manager
before_rotation=$(docker swarm join-token -q worker)
expect 0 'Successfully rotated worker join token' docker swarm join-token --rotate worker
expect 0 '^SWMTKN-1-' docker swarm join-token -q worker
if [ "$out" = "$before_rotation" ]; then failed=$((failed+1)); echo "FAILED the worker token did not change"; fi
expect 1 'unknown role|invalid' docker swarm join-token chief
expect 0 'Swarm updated' docker swarm update --task-history-limit 3 --cert-expiry 720h --dispatcher-heartbeat 4s --snapshot-interval 9000
expect 0 'Task History Retention Limit: 3' docker info
expect 0 '^4s 720h0m0s 9000$' docker info --format '{{.Swarm.Cluster.Spec.Dispatcher.HeartbeatPeriod}} {{.Swarm.Cluster.Spec.CAConfig.NodeCertExpiry}} {{.Swarm.Cluster.Spec.Raft.SnapshotInterval}}'
expect 0 'Swarm updated' docker swarm update --task-history-limit 5 --cert-expiry 2160h --dispatcher-heartbeat 5s --snapshot-interval 10000
expect 1 'minimum certificate expiry time is: 1h0m0s' docker swarm update --cert-expiry 1m
expect 1 'participating as a manager' docker swarm leave
expect 1 'autolock is not supported yet' docker swarm update --autolock=true
expect 1 'not supported yet' docker swarm ca --rotate -d
expect 0 'BEGIN CERTIFICATE' docker swarm ca
expect 1 'no unlock key is set' docker swarm unlock-key
expect 1 'swarm is not locked' docker swarm unlock

# --- nodes
expect 0 "$worker +Ready +Active" docker node ls
expect 0 "\* +$manager +Ready +Active +Leader" docker node ls
expect 0 "^$worker Ready $" docker node ls --filter "name=$worker" --format '{{.Hostname}} {{.Status}} {{.ManagerStatus}}'
expect 0 '^[0-9a-z]{25}$' docker node ls -q --filter role=manager
expect 1 "invalid filter 'bogus'" docker node ls --filter bogus=1
expect 0 "^$worker$" docker node inspect --format '{{.Description.Hostname}}' "$worker"
expect 0 "^$manager leader=true$" docker node inspect --format '{{.Description.Hostname}} leader={{.ManagerStatus.Leader}}' self
expect 0 'State:[[:space:]]+Ready' docker node inspect --pretty "$worker"
expect 0 'Raft Status:[[:space:]]+Reachable' docker node inspect --pretty self
expect 0 "^$worker$" docker node update --label-add zone=east --label-add rack=1 "$worker"
expect 0 '^east 1$' docker node inspect --format '{{.Spec.Labels.zone}} {{.Spec.Labels.rack}}' "$worker"
expect 0 "$worker" docker node ls --filter node.label=zone=east
expect 0 "^$worker$" docker node update --label-rm rack "$worker"
expect 0 '^map\[zone:east\]$' docker node inspect --format '{{.Spec.Labels}}' "$worker"
expect 1 "is not down and can't be removed" docker node rm "$worker"
expect 1 'must be demoted to worker before removal' docker node rm --force "$manager"
expect 1 'node nowhere not found|[Nn]o such node: nowhere' docker node inspect nowhere
expect 1 'node nowhere not found|[Nn]o such node: nowhere' docker node update --availability drain nowhere
expect 1 'demote the last manager' docker node demote "$manager"
expect 1 'invalid Availability: "asleep"' docker node update --availability asleep "$worker"
expect 1 'invalid Role: "king"' docker node update --role king "$worker"
expect 0 '^$|NAME' docker node ps self
expect 0 "^$worker$" docker node update --availability drain "$worker"
expect 0 "$worker +Ready +Drain" docker node ls
expect 0 "^$worker$" docker node update --availability active "$worker"
expect 0 "Node $worker promoted to a manager in the swarm" docker node promote "$worker"
eventually "$worker +Ready +Active +Reachable" docker node ls
eventually "$worker +Ready +Active +Reachable" on_worker node ls
expect 0 'is already a manager' docker node promote "$worker"
expect 0 "Manager $worker demoted in the swarm" docker node demote "$worker"
eventually "$worker +Ready +Active +[0-9.]+$" docker node ls
expect 0 'is already a worker' docker node demote "$worker"
no_manager() { on_worker node ls 2>&1 | grep 'not a swarm manager'; }
eventually "Worker nodes can't be used to view or modify cluster state" no_manager
expect 1 'This node is not a swarm manager' on_worker service ls

# --- networks
expect 0 "$id" docker network create -d overlay front
expect 1 'network with name front already exists' docker network create -d overlay front
expect 0 'front +overlay +swarm' docker network ls
expect 0 '^front$' docker network ls --filter driver=overlay --filter name=fro --format '{{.Name}}'
expect 0 '^overlay swarm 10\.' docker network inspect --format '{{.Driver}} {{.Scope}} {{(index .IPAM.Config 0).Subnet}}' front
expect 0 "$id" docker network create -d overlay --subnet 10.200.0.0/24 --gateway 10.200.0.77 --label team=a --internal back
expect 0 '^\[\{10.200.0.0/24 *10.200.0.77 map\[\]\}\] true$' docker network inspect --format '{{.IPAM.Config}} {{.Internal}}' back
expect 1 'overlap' docker network create -d overlay --subnet 10.200.0.0/25 clash
expect 1 'invalid|prefix|subnet' docker network create -d overlay --subnet 10.300.0.0/24 bad
expect 1 'networks of driver bridge are not supported yet' docker network create -d bridge local
expect 1 'not supported yet' docker network create -d overlay --ipv6 six
expect 0 'back' docker network ls --filter label=team=a
expect 1 "invalid filter 'bogus'" docker network ls --filter bogus=1
expect 1 'host is a pre-defined network and cannot be removed' docker network rm host
expect 0 '^none$' docker inspect --type network --format '{{.Name}}' none

# --- a service from its creation to its end
expect 0 'overall progress: 2 out of 2 tasks' docker service create --no-resolve-image --update-monitor 1s --name web --replicas 2 --network front --env A=1 --label tier=front busybox "${stay[@]}"
expect 0 '[Ss]ervice .*converged' docker service scale web=1
expect 0 '[Ss]ervice .*converged' docker service update --no-resolve-image --label-add note=only web
expect 0 'overall progress: 1 out of 1 tasks' docker service update --no-resolve-image --env-add B=2 web
# The client keeps --env-add in a map: the order is not told.
expect 0 '^\[("A=1","B=2"|"B=2","A=1")\]$' value TaskTemplate.ContainerSpec.Env web
expect 0 'rollback: manually requested rollback|overall progress: rolling back update' docker service rollback web
eventually '^\["A=1"\]$' value TaskTemplate.ContainerSpec.Env web
expect 1 'name conflicts with an existing object' "${create[@]}" --name web busybox sleep 1d
expect 1 'name must be valid as a DNS name component' "${create[@]}" --name 'bad name' busybox sleep 1d
expect 1 'name must be 63 characters or fewer' "${create[@]}" --name "$(printf 'a%.0s' $(seq 64))" busybox sleep 1d
expect 1 'network nowhere not found|No such network: nowhere' "${create[@]}" --name x --network nowhere busybox sleep 1d
expect 1 'cannot be explicitly attached to the ingress network' "${create[@]}" --name x --network ingress busybox sleep 1d
expect 1 '"BAD IMAGE" is not a valid repository/tag' "${create[@]}" --name x 'BAD IMAGE' sleep 1d
expect 1 'invalid cpu value 0.0001: Must be at least 0.001' "${create[@]}" --name x --limit-cpu 0.0001 busybox sleep 1d
expect 1 'Must be at least 4MiB' "${create[@]}" --name x --reserve-memory 1k busybox sleep 1d
expect 1 'invalid bind mount source, must be an absolute path: rel' "${create[@]}" --name x --mount type=bind,source=rel,target=/v busybox sleep 1d
expect 1 'constraint expected one operator from ==, !=' "${create[@]}" --name x --constraint moon busybox sleep 1d
expect 1 'invalid capability: "CAP_FOO"' "${create[@]}" --name x --cap-add FOO busybox sleep 1d
expect 1 'invalid RestartCondition: "sometimes"' "${create[@]}" --name x --restart-condition sometimes busybox sleep 1d
expect 1 'unrecognized update failure action shrug' "${create[@]}" --name x --update-failure-action shrug busybox sleep 1d
expect 1 'replicas can only be used with replicated' "${create[@]}" --name x --mode global --replicas 2 busybox sleep 1d
expect 125 'unknown flag: --bogus' "${create[@]}" --bogus busybox
expect 0 'web scaled to 2' docker service scale -d web=2
eventually 'web +replicated +2/2 +busybox:latest' docker service ls
expect 0 'web\.1 .*Running +Running' docker service ps web
expect 0 'web\.2 .*Running' docker service ps --no-trunc web
expect 0 '^web\.2 Running$' docker service ps --filter desired-state=running --filter name=web.2 --format '{{.Name}} {{.DesiredState}}' web
expect 1 "invalid filter 'bogus'" docker service ps --filter bogus=1 web
expect 0 '^2$' docker service inspect --format '{{.Spec.Mode.Replicated.Replicas}}' web
expect 0 'Service Mode:[[:space:]]+Replicated' docker service inspect --pretty web
expect 0 '^web$' docker inspect --type service --format '{{.Spec.Name}}' web
expect 0 '^running web$' docker inspect --format "{{.Status.State}} {{index .Spec.ContainerSpec.Args 0 | printf \"%.0s\"}}web" "$(task_of web)"
expect 0 'web' docker service ls --filter label=tier=front --filter mode=replicated
expect 0 '"web"' docker network inspect -v front
expect 1 'service nothing not found|[Nn]o such service: nothing' docker service inspect nothing
expect 1 'no such service: nothing' docker service ps nothing
expect 1 'no such task or service: nothing' docker service logs nothing
expect 1 'service nothing not found|[Nn]o such service: nothing' docker service scale -d nothing=2
expect 1 'invalid replicas value -1' docker service scale -d web=-1
expect 1 'in use by (service|task)' docker network rm front
eventually '^front$' docker network inspect --format '{{.Name}}' front

# --- every flag of service update, in the spec and inside the task
cat > "$folder/see.sh" <<'SEE'
trap 'exit 0' TERM USR1
echo "args=$*"
echo "host=$(hostname) user=$(id -u):$(id -g) groups=$(id -G) dir=$(pwd)"
env | sed 's/^/env /'
sed 's/^/hosts /' /etc/hosts
sed 's/^/resolv /' /etc/resolv.conf
echo "nofile=$(ulimit -Sn):$(ulimit -Hn)"
grep CapEff /proc/self/status | tr -d '\t'
echo "somaxconn=$(cat /proc/sys/net/core/somaxconn)"
grep -E ' /(see|scratch) ' /proc/mounts | sed 's/^/mount /'
(: > /made) 2>/dev/null && echo root=writable || echo root=read-only
cd /sys/fs/cgroup
echo "memory=$(cat memory/memory.limit_in_bytes memory.max 2>/dev/null | head -1)"
echo "pids=$(cat pids/pids.max pids.max 2>/dev/null | head -1)"
echo "cpu=$(cat cpu/cpu.cfs_quota_us cpu.max 2>/dev/null | head -1)"
ip -o -4 addr | sed 's/^/addr /'
echo "the end"
sleep 1d & wait
SEE
expect 0 "$id" "${create[@]}" --name probe --update-monitor 10ms --stop-grace-period 5s --constraint "node.hostname==$manager" --mount "type=bind,source=$folder,target=/see,readonly" busybox sh /see/see.sh one
sees '^args=one$' probe
sees '^mount .* /see .* ro,' probe
sees '^root=writable$' probe
changed --args 'sh /see/see.sh two' --env-add X=1 --env-add Y=2 --label-add a=b --label-add c=d --container-label-add of=task
sees '^args=two$' probe
sees '^env Y=2$' probe
expect 0 '^\{"a":"b","c":"d"\}$' value Labels probe
expect 0 '"of":"task"' value TaskTemplate.ContainerSpec.Labels probe
changed --env-rm X --container-label-rm of --label-rm c --workdir /tmp --hostname probing --user 65534 --group-add 7
sees '^host=probing user=65534:65534 groups=65534 7 dir=/tmp$' probe
expect 0 '^\["Y=2"\]$' value TaskTemplate.ContainerSpec.Env probe
expect 0 '^\{"a":"b"\}$' value Labels probe
changed --user '' --group-rm 7 --hostname '' --workdir '' --limit-cpu 0.5 --limit-memory 64M --limit-pids 50 --reserve-cpu 0.1 --reserve-memory 16M
sees '^memory=67108864$' probe
sees '^pids=50$' probe
sees '^cpu=50000' probe
sees 'user=0:0 .* dir=/$' probe
expect 0 '^\{"Limits":\{"NanoCPUs":500000000,"MemoryBytes":67108864,"Pids":50\},"Reservations":\{"NanoCPUs":100000000,"MemoryBytes":16777216\}\}$' value TaskTemplate.Resources probe
changed --limit-cpu 0 --limit-memory 0 --limit-pids 0 --reserve-cpu 0 --reserve-memory 0 --network-add front --read-only
sees '^pids=max$' probe
sees '^addr .* 10\.[0-9.]+/24 ' probe
sees '^resolv nameserver 127\.0\.0\.11' probe
sees '^root=read-only$' probe
changed --network-rm front --read-only=false --mount-add type=tmpfs,target=/scratch,tmpfs-size=1048576,tmpfs-mode=1770 --host-add db:10.9.8.7
sees '^mount tmpfs /scratch .*size=1024k,mode=1770' probe
sees '^hosts 10\.9\.8\.7[[:space:]]+db$' probe
expect 0 '^null$' value TaskTemplate.Networks probe
changed --mount-rm /scratch --host-rm db:10.9.8.7 --dns-add 9.9.9.9 --dns-search-add example.org --dns-option-add ndots:2
sees '^resolv search example\.org$' probe
sees '^resolv options ndots:2$' probe
sees '^resolv nameserver 9\.9\.9\.9$' probe
expect 0 '^\{"Nameservers":\["9.9.9.9"\],"Search":\["example.org"\],"Options":\["ndots:2"\]\}$' value TaskTemplate.ContainerSpec.DNSConfig probe
changed --dns-rm 9.9.9.9 --dns-search-rm example.org --dns-option-rm ndots:2 --cap-add NET_ADMIN --cap-drop CHOWN --ulimit-add nofile=512:1024 --sysctl-add net.core.somaxconn=99
sees '^CapEff:00000000a80435fa$' probe
sees '^nofile=512:1024$' probe
sees '^somaxconn=99$' probe
changed --ulimit-rm nofile --sysctl-rm net.core.somaxconn --stop-signal USR1 --stop-grace-period 3s --log-driver json-file --log-opt max-size=1m
expect 0 '^"USR1"$' value TaskTemplate.ContainerSpec.StopSignal probe
expect 0 '^3000000000$' value TaskTemplate.ContainerSpec.StopGracePeriod probe
expect 0 '^\{"Name":"json-file","Options":\{"max-size":"1m"\}\}$' value TaskTemplate.LogDriver probe
expect 0 '^null$|^\{\}$' value TaskTemplate.ContainerSpec.Sysctls probe
before=$(task_of probe)
expect 0 '^probe$' "${update[@]}" --constraint-add node.role==manager --placement-pref-add spread=node.labels.zone --replicas-max-per-node 2 probe
expect 0 "^$before$" docker service ps -q --filter desired-state=running probe
changed --constraint-rm "node.hostname==$manager" --constraint-rm node.role==manager --constraint-add "node.hostname==$worker"
expect 0 "^$worker$" docker service ps --filter desired-state=running --format '{{.Node}}' probe
expect 0 '"Preferences":\[\{"Spread":\{"SpreadDescriptor":"node.labels.zone"\}\}\],"MaxReplicas":2' value TaskTemplate.Placement probe
changed --constraint-rm "node.hostname==$worker" --constraint-add "node.hostname!=$worker" --placement-pref-rm spread=node.labels.zone --replicas-max-per-node 0
expect 0 "^$manager$" docker service ps --filter desired-state=running --format '{{.Node}}' probe
changed --restart-condition on-failure --restart-delay 1s --restart-max-attempts 3 --restart-window 10s
expect 0 '^\{"Condition":"on-failure","Delay":1000000000,"MaxAttempts":3,"Window":10000000000\}$' value TaskTemplate.RestartPolicy probe
expect 0 '^probe$' "${update[@]}" --update-parallelism 2 --update-delay 1ms --update-monitor 20ms --update-failure-action continue --update-max-failure-ratio 0.25 --update-order start-first probe
expect 0 '^\{"Parallelism":2,"Delay":1000000,"FailureAction":"continue","Monitor":20000000,"MaxFailureRatio":0.25,"Order":"start-first"\}$' value UpdateConfig probe
expect 0 '^probe$' "${update[@]}" --rollback-parallelism 3 --rollback-delay 2ms --rollback-monitor 30ms --rollback-failure-action continue --rollback-max-failure-ratio 0.5 --rollback-order start-first probe
expect 0 '^\{"Parallelism":3,"Delay":2000000,"FailureAction":"continue","Monitor":30000000,"MaxFailureRatio":0.5,"Order":"start-first"\}$' value RollbackConfig probe
expect 0 '^probe$' "${update[@]}" --endpoint-mode dnsrr probe
expect 0 '^\{"Mode":"dnsrr"\}$' value EndpointSpec probe
before=$(task_of probe)
changed --force
expect 0 '^1$' value TaskTemplate.ForceUpdate probe
if [ "$(task_of probe)" = "$before" ]; then failed=$((failed+1)); echo "FAILED update --force did not replace the task"; fi
changed --entrypoint 'sh /see/see.sh' --args three --replicas 2
sees '^args=three$' probe
expect 0 '^\["sh","/see/see.sh"\]$' value TaskTemplate.ContainerSpec.Command probe
expect 0 '^probe$' docker service update -d --rollback probe
eventually '^rollback_completed$' docker service inspect --format '{{.UpdateStatus.State}}' probe
expect 0 '^\{"Replicated":\{"Replicas":1\}\}$' value Mode probe
expect 0 'State:[[:space:]]+rollback_completed' docker service inspect --pretty probe

# --- what does not exist yet is refused by its name
refused() { local what=$1; shift; expect 1 "$what" "${create[@]}" --name x "$@" busybox sleep 1d; }
refused 'published ports are not supported yet' --publish 80:80
refused 'secret not found: s|secrets are not supported yet' --secret s
refused 'config not found: c|configs are not supported yet' --config c
refused 'health checks are not supported yet' --health-cmd true
refused 'health checks are not supported yet' --no-healthcheck
refused 'job modes \(replicated-job, global-job\) are not supported yet' --mode replicated-job
refused 'job modes \(replicated-job, global-job\) are not supported yet' --mode global-job
refused 'generic resources are not supported yet' --generic-resource gpu=1
refused 'mounts of type volume are not supported yet' --mount type=volume,source=v,target=/v
refused 'terminals \(tty\) are not supported yet' --tty
refused 'an init process \(--init\) is not supported yet' --init
refused 'credential specs are not supported yet' --credential-spec file://x
refused 'isolation hyperv is not supported' --isolation hyperv
refused 'log driver syslog is not supported yet' --log-driver syslog
refused 'templates such as \{\{.Node.ID\}\} are not supported yet' --hostname '{{.Node.ID}}'
expect 1 'published ports are not supported yet' "${update[@]}" --publish-add 80 web
expect 1 'health checks are not supported yet' "${update[@]}" --health-cmd true web
expect 1 'terminals \(tty\) are not supported yet' "${update[@]}" --tty web
expect 1 'mounts of type volume are not supported yet' "${update[@]}" --mount-add type=volume,source=v,target=/v web
expect 125 'containers/create is not supported by this version of shoal' docker run busybox
expect 1 'containers/create is not supported by this version of shoal' docker create busybox
expect 1 'pulling .*busybox from a registry is not supported yet' docker pull busybox
expect 1 'push is not supported by this version of shoal' docker push busybox
mkdir -p "$folder/context" && printf 'FROM busybox\n' > "$folder/context/Dockerfile"
expect 1 'build is not supported by this version of shoal' env DOCKER_BUILDKIT=0 "$client" build "$folder/context"
expect 1 'volumes/create is not supported by this version of shoal' docker volume create v
expect 1 'secrets/create is not supported by this version of shoal' docker secret create s "$folder/see.sh"
expect 1 'configs/create is not supported by this version of shoal' docker config create c "$folder/see.sh"
expect 1 'networks/\{id\}/connect is not supported by this version of shoal' docker network connect front x
expect 1 'networks/prune is not supported by this version of shoal' docker network prune -f
expect 0 'VOLUME NAME' docker volume ls
expect 0 'NAME' docker secret ls
expect 0 'NAME' docker config ls
expect 0 'DESCRIPTION' docker plugin ls

# --- services of other kinds, their tasks, logs and reasons
expect 0 "$id" "${create[@]}" --name all --mode global busybox "${stay[@]}"
expect 0 "$id" "${create[@]}" --name talk --restart-condition none busybox sh -c 'echo hello; echo trouble >&2'
expect 0 "$id" "${create[@]}" --name nowhere --constraint node.labels.zone==mars busybox sleep 1d
expect 0 "$id" "${create[@]}" --name heavy --reserve-memory 900G busybox sleep 1d
expect 0 "$id" "${create[@]}" --name ghost --restart-condition none no-such-image:1 sleep 1d
expect 0 "$id" "${create[@]}" --name three --restart-condition none busybox sh -c 'exit 3'
expect 0 "$id" "${create[@]}" --name lost --restart-condition none busybox no-such-command
expect 0 "$id" "${create[@]}" --name unbound --restart-condition none --mount type=bind,source=/no/such/folder,target=/v busybox sleep 1d
eventually 'all +global +2/2 ' docker service ls
expect 0 '^all$' docker service ls --filter mode=global --format '{{.Name}}'
expect 0 "all\.[0-9a-z]{25}.*$worker" docker service ps --no-trunc all
eventually 'Complete' docker service ps talk
expect 0 'talk\.1\.[0-9a-z]+@.*\| hello' docker service logs talk
expect 0 '^hello$' docker service logs --raw talk
expect 0 '^[0-9T:.-]+Z hello$' docker service logs --raw --timestamps talk
expect 0 'talk\.1@.*\| trouble' docker service logs --no-task-ids talk
expect 0 '^$' docker service logs --raw --tail 0 talk
expect 0 '^trouble$' docker service logs --raw --since 10m "$(docker service ps -q talk)"
expect 124 '^(hello|trouble)$' timeout 1 "$client" service logs --raw --follow --tail 1 talk
eventually 'no suitable node \(scheduling constraints not satisfied on 2 nodes\)' docker service ps --no-trunc nowhere
eventually 'no suitable node \(insufficient resources on 2 nodes\)' docker service ps --no-trunc heavy
eventually 'Rejected.*No such image: no-such-image:1' docker service ps --no-trunc ghost
eventually 'Failed.*task: non-zero exit \(3\)' docker service ps --no-trunc three
eventually 'no-such-command.*: executable file not found in \$PATH' docker service ps --no-trunc lost
eventually 'invalid mount config for type "bind": bind source path does not exist: /no/such/folder' docker service ps --no-trunc unbound
expect 0 'web|all' docker node ps "$worker"
expect 0 "^all\.[0-9a-z]+ Running$" docker node ps --filter name=all --filter desired-state=running --format '{{.Name}} {{.DesiredState}}' "$worker"

# --- containers of this node
eventually 'all\.' docker ps
expect 0 '^all\.[0-9a-z]{25}\.[0-9a-z]{25} busybox:latest Up ' docker ps --filter label=com.docker.swarm.service.name=all --format '{{.Names}} {{.Image}} {{.Status}}'
container=$(docker ps -q --filter name=all)
expect 0 'sleep 1d' docker top "$container"
expect 0 'COMMAND' docker top "$container" -o pid,comm
expect 0 '^running true 0$' docker inspect --format '{{.State.Status}} {{.State.Running}} {{.State.ExitCode}}' "$container"
expect 0 '^all$' docker container inspect --format '{{index .Config.Labels "com.docker.swarm.service.name"}}' "$container"
expect 0 '^$' docker logs "$container"
expect 0 '^the end$' docker logs --tail 1 "$(docker ps -q --filter label=com.docker.swarm.service.name=probe)"
expect 0 '^$' docker port "$container"
expect 1 "invalid filter 'bogus'" docker ps --filter bogus=1
expect 1 'exec is not supported by this version of shoal' docker exec "$container" ls
expect 1 'stop is not supported by this version of shoal' docker stop "$container"
expect 1 'No such (object|container)|no such object' docker inspect no-such-thing
expect 1 'No such container: no-such-thing' docker logs no-such-thing
expect 1 'No such container: no-such-thing' docker top no-such-thing

# --- the end of them
expect 0 '^probe$' docker service rm web probe all talk nowhere heavy ghost three lost unbound
expect 1 'service web not found|[Nn]o such service: web' docker service rm web
no_containers() { local left; left=$(docker ps -q; on_worker ps -q); [ -z "$left" ] && echo none; }
eventually '^none$' no_containers
eventually '^front$' docker network rm front
expect 0 '^back$' docker network rm back
expect 1 'network front not found|No such network: front' docker network rm front
expect 1 'network back not found|No such network' docker network inspect back
expect 0 '^$' docker service ls -q

# --- events of all of this
now=$(($(date +%s)+1))
expect 0 '^service create probe$' docker events --since "$began" --until "$now" --filter type=service --format '{{.Type}} {{.Action}} {{.Actor.Attributes.name}}'
expect 0 'service update [0-9a-z]{25} \(name=web, replicas.new=2, replicas.old=1' docker events --since "$began" --until "$now" --filter service=web
expect 0 'updatestate.new=completed, updatestate.old=updating' docker events --since "$began" --until "$now" --filter service=probe --filter event=update
expect 0 "node update [0-9a-z]{25} \(availability.new=drain, availability.old=active, name=$worker\)" docker events --since "$began" --until "$now" --filter type=node
expect 0 '^network create$' docker events --since "$began" --until "$now" --filter network=front --format '{{.Type}} {{.Action}}'
expect 0 'container die .*exitCode=' docker events --since "$began" --until "$now" --filter type=container --filter event=die
expect 0 '^image load$|^image import$' docker events --since "$began" --until "$now" --filter type=image --format '{{.Type}} {{.Action}}'
expect 0 '"Action":"remove".*"scope":"swarm"' docker events --since "$began" --until "$now" --filter event=remove --format '{{json .}}'
expect 1 "invalid filter 'bogus'" docker events --since "$began" --until "$now" --filter bogus=1

# --- a node that leaves, makes a swarm of its own, and comes back
token=$(docker swarm join-token -q worker)
address=$(docker info --format '{{.Swarm.NodeAddr}}')
gone=$(docker node ls -q --filter "name=$worker")
expect 0 'Node left the swarm' on_worker swarm leave
expect 0 '^inactive$' on_worker info --format '{{.Swarm.LocalNodeState}}'
expect 1 'This node is not part of a swarm' on_worker swarm leave
expect 1 'Use "docker swarm init" or "docker swarm join" to connect this node to swarm' on_worker node ls
expect 1 'join token is required|invalid join token' on_worker swarm join "$address:2377"
expect 1 'invalid join token' on_worker swarm join --token SWMTKN-1-xyz "$address:2377"
expect 1 'A valid join token is necessary to join this cluster' on_worker swarm join --token "${token%-*}-aaaaaaaaaaaaaaaaaaaaaaaaa" "$address:2377"
expect 1 'A valid join token is necessary to join this cluster' on_worker swarm join --token "$before_rotation" "$address:2377"
expect 1 'remote CA does not match fingerprint' on_worker swarm join --token "SWMTKN-1-0000000000${token:19}" "$address:2377"
expect 1 'connect ECONNREFUSED|connection refused' on_worker swarm join --token "$token" "$address:1"
expect 1 'overlaps' on_worker swarm init --default-addr-pool "${address%.*}.0/24"
expect 1 'autolock is not supported yet' on_worker swarm init --autolock
expect 0 'Swarm initialized: current node \([0-9a-z]{25}\) is now a manager' on_worker swarm init --default-addr-pool 10.99.0.0/16 --default-addr-pool-mask-length 26 --data-path-port 7777
expect 0 '^\[10.99.0.0/16\] 26 7777$' on_worker info --format '{{.Swarm.Cluster.DefaultAddrPool}} {{.Swarm.Cluster.SubnetSize}} {{.Swarm.Cluster.DataPathPort}}'
expect 0 "$id" on_worker network create -d overlay pooled
expect 0 '^10\.99\.[0-9.]+/26$' on_worker network inspect --format '{{(index .IPAM.Config 0).Subnet}}' pooled
expect 1 'Removing the last manager erases all current state of the swarm' on_worker swarm leave
expect 0 'Node left the swarm' on_worker swarm leave --force
expect 0 'This node joined a swarm as a worker' on_worker swarm join --token "$token" --availability drain "$address:2377"
eventually "$worker +Ready +Drain" docker node ls
eventually '^down$' docker node inspect --format '{{.Status.State}}' "$gone"
expect 1 'is ambiguous' docker node inspect "$worker"
expect 0 "^$gone$" docker node rm "$gone"
expect 0 "^$worker$" docker node update --availability active "$worker"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
