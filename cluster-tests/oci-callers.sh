#!/usr/bin/env bash
# Podman, containerd and dockerd with shoal-core as their OCI runtime: each command with its exit code and its output asserted.
# usage: unshare --mount --net --pid --fork --kill-child --mount-proc oci-callers.sh podman|containerd|dockerd SHOAL_CORE FOLDER
#   FOLDER holds rootfs.tar (a busybox root) and image.tar (docker save's form, busybox:latest) and takes everything that the caller keeps.
#   It ends the daemon that it started and removes the groups that the caller made under the name of the folder.
set -u
caller=$1 core=$2 folder=$3
# Conmon writes a file where podman was called when memory ran out.
cd "$folder" || exit 2
passed=0 failed=0 out='' daemon=''
# Groups of this run are below this name, so that they can be told from everybody else's.
parent=/$(basename "$(dirname "$folder")")-$(basename "$folder")
# Longest that one command may take. In the foreground: else it is in a process group of its own, which the terminal of on_tty stops as soon as the
# command sets it (whether it is depends on the shell: one that executes its last command makes it the session's leader, which no group takes).
limited=(timeout --foreground 20)

# expect CODE REGEX COMMAND...: runs it; its output (both streams) must match the extended REGEX.
expect() {
  local code=$1 pattern=$2 got; shift 2
  out=$("$@" 2>&1 </dev/null); got=$?
  if [ "$got" != "$code" ]; then failed=$((failed+1)); printf 'FAILED %s\n  exit %s, not %s\n%s\n' "$*" "$got" "$code" "$out"; return 1; fi
  if ! grep -Eq -- "$pattern" <<<"$out"; then failed=$((failed+1)); printf 'FAILED %s\n  output does not match: %s\n%s\n' "$*" "$pattern" "$out"; return 1; fi
  passed=$((passed+1))
}
# on_tty COMMAND...: with a terminal of 24 by 80 on all three streams; what the terminal itself adds is left out.
on_tty() { SHELL=/bin/sh script -qec "stty rows 24 cols 80; $(printf '%q ' "$@")" /dev/null </dev/null | tr -d '\r\0' | sed 's/^\^@//'; return "${PIPESTATUS[0]}"; }
# The program of a container that ends with 7 when it is asked to, and says that it runs.
stay='trap "exit 7" TERM; echo up; while :; do sleep 0.1; done'
await() { for _ in $(seq 200); do "$@" >/dev/null 2>&1 && return 0; sleep 0.05; done; echo "FAILED waiting for: $*"; return 1; }
end() {
  [ -z "$daemon" ] || { kill "$daemon" 2>/dev/null; wait "$daemon" 2>/dev/null; }
  # Deepest first; the caller's own helpers may need a moment to be gone. A group that stays is told by the test.
  for _ in $(seq 100); do
    find /sys/fs/cgroup -mindepth 2 -type d -path "*$parent*" 2>/dev/null | sort -r | while read -r group; do rmdir "$group" 2>/dev/null; done
    [ -n "$(find /sys/fs/cgroup -mindepth 2 -type d -path "*$parent*" -print -quit 2>/dev/null)" ] || break
    sleep 0.05
  done
}
trap end EXIT
mount --make-rprivate /
# As systemd leaves it: podman makes plain directories for the hierarchies that are not mounted where it can.
[ "$(stat -f -c %T /sys/fs/cgroup)" != tmpfs ] || mount -o remount,bind,ro /sys/fs/cgroup
ip link set lo up

# Options that both podman and docker know, in one go: memory in the file system, limits, a device, no capability and no more of them.
hardened=(--network none --tmpfs /x --shm-size 1m --ulimit nofile=100:200 --sysctl net.ipv4.ip_forward=1 --device /dev/zero:/dev/nought
  --cap-drop all --security-opt no-new-privileges --read-only --memory 64m --pids-limit 50)
look='mount | grep -c -E " on (/x|/dev/shm) type tmpfs"; ulimit -n; cat /proc/sys/net/ipv4/ip_forward; head -c 3 /dev/nought | wc -c; grep -E "CapEff|NoNewPrivs|Seccomp:" /proc/self/status; touch /file 2>/dev/null || echo refused'
looked='^2 100 1 3 CapEff: 0000000000000000 NoNewPrivs: 1 Seccomp: 2 .*refused$'
line() { "$@" 2>&1 | tr -s ' \n\t' ' ' | sed 's/^ //; s/ $//'; return "${PIPESTATUS[0]}"; }

# The exit code of an exec whose program is not there: docker 20.10 says 126.
exec_missing=127
[ "$caller" != dockerd ] || exec_missing=126
# What podman and docker say alike. usage: engine COMMAND...; the image is busybox.
engine() {
  expect 3 '^hello$' "$@" run --name c-a --network none busybox sh -c 'echo hello; exit 3'
  expect 0 '^hello$' "$@" logs c-a
  expect 0 '^3$' "$@" inspect --format '{{.State.ExitCode}}' c-a
  expect 0 . "$@" rm c-a
  expect 0 '^[0-9a-f]{64}$' "$@" run -d --name c-b --network none busybox sh -c "$stay"
  expect 5 '^inside$' "$@" exec c-b sh -c 'echo inside; exit 5'
  expect 0 '^uid=65534\(nobody\)' "$@" exec -u nobody c-b id
  expect 0 '^/tmp$' "$@" exec -w /tmp c-b pwd
  expect 0 '^one$' "$@" exec -e X=one c-b sh -c 'echo $X'
  expect "$exec_missing" 'executable file not found' "$@" exec c-b nosuch
  expect 2 '^/dev/pts/[0-9]+$' on_tty "$@" exec -it c-b sh -c 'tty; exit 2'
  expect 0 'sleep 0.1|while :' "$@" top c-b
  expect 0 . "$@" pause c-b
  expect 0 Paused "$@" ps -a --filter name=c-b --format '{{.Status}}'
  expect 0 . "$@" unpause c-b
  expect 0 '[0-9.]+%.* / ' "$@" stats --no-stream c-b
  expect 0 . "$@" stop c-b
  expect 0 '^7$' "$@" wait c-b
  expect 0 '^up$' "$@" logs c-b
  expect 0 . "$@" rm c-b
  # Podman's own attach loses what a program says that ends at once (5 of 40 times, with runc alike).
  expect 4 '^/dev/(pts/[0-9]+|console)$' on_tty "$@" run --rm -it --network none busybox sh -c 'sleep 0.2; tty; sleep 0.2; exit 4'
  expect 127 'executable file not found' "$@" run --rm --network none busybox nosuch
  expect 126 'permission denied' "$@" run --rm --network none busybox /etc/passwd
  expect 0 "$looked" line "$@" run --rm "${hardened[@]}" busybox sh -c "$look"
  expect 137 '' "$@" run --rm --network none --memory 8m busybox sh -c 'tail /dev/zero'
  expect 0 '^[0-9]+$' "$@" run --rm --network none --privileged busybox sh -c 'ls /dev | wc -l'
  expect 0 'init' "$@" run --rm --network none --init busybox cat /proc/1/comm
  expect 0 "^$(hostname)\$" "$@" run --rm --network host --uts host --pid host --ipc host busybox hostname
  expect 0 '^given$' "$@" run --rm --network none -v "$folder/bound:/bound:ro" busybox sh -c 'cat /bound/file; ! touch /bound/file 2>/dev/null'
  expect 0 '^$' "$@" ps -aq
}

mkdir -p "$folder/bound" && echo given >"$folder/bound/file"
case $caller in
podman)
  export CONTAINERS_CONF=$folder/containers.conf
  printf '[containers]\nlog_driver = "k8s-file"\n[engine]\nevents_logger = "file"\ninit_path = "/usr/bin/docker-init"\n' >"$CONTAINERS_CONF"
  # Podman takes the parent of a container's group by container alone.
  cat >"$folder/podman" <<X
#!/bin/bash
verb=\$1; shift; [ "\$verb" != run ] || set -- --cgroup-parent "$parent" "\$@"
exec ${limited[*]} podman --log-level error --root "$folder/root" --runroot "$folder/run" --tmpdir "$folder/tmp" --cgroup-manager cgroupfs --runtime "$core" "\$verb" "\$@"
X
  chmod +x "$folder/podman"
  run=("$folder/podman")
  expect 0 . "${run[@]}" import -q "$folder/rootfs.tar" busybox:latest
  engine "${run[@]}"
  expect 0 '^0 100000 65536$' line "${run[@]}" run --rm --network none --uidmap 0:100000:65536 busybox cat /proc/self/uid_map
  ;;
dockerd)
  export DOCKER_HOST=unix://$folder/docker.sock DOCKER_CONFIG=$folder/config
  dockerd --data-root "$folder/root" --exec-root "$folder/run" -p "$folder/pid" -H "$DOCKER_HOST" --iptables=false --ip6tables=false --bridge none \
    --cgroup-parent "$parent" --add-runtime "shoal=$core" --default-runtime shoal >"$folder/log" 2>&1 &
  daemon=$!
  run=("${limited[@]}" /usr/bin/docker)
  await "${run[@]}" version
  expect 0 . "${run[@]}" import "$folder/rootfs.tar" busybox:latest
  expect 0 '^shoal$' "${run[@]}" info --format '{{.DefaultRuntime}}'
  engine "${run[@]}"
  expect 0 . "${run[@]}" run -d --name limits --network none busybox sh -c "$stay"
  expect 0 . "${run[@]}" update --memory 64m --memory-swap 64m --cpu-shares 512 limits
  expect 0 '^67108864 512$' "${run[@]}" inspect --format '{{.HostConfig.Memory}} {{.HostConfig.CpuShares}}' limits
  expect 0 . "${run[@]}" kill limits
  expect 0 '^137$' "${run[@]}" wait limits
  expect 0 . "${run[@]}" rm limits
  ;;
containerd)
  cat >"$folder/config.toml" <<X
version = 2
root = "$folder/root"
state = "$folder/run"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$folder/containerd.sock"
X
  containerd -c "$folder/config.toml" >"$folder/log" 2>&1 &
  daemon=$!
  run=("${limited[@]}" ctr -a "$folder/containerd.sock")
  await "${run[@]}" version
  expect 0 'unpacking' "${run[@]}" image import "$folder/image.tar"
  image=$("${run[@]}" image ls -q | head -1)
  start=("${run[@]}" run --runc-binary "$core")
  expect 3 '^hello$' "${start[@]}" --rm --cgroup "$parent/one" "$image" one sh -c 'echo hello; exit 3'
  expect 0 '' "${start[@]}" -d --cgroup "$parent/two" --memory-limit 67108864 "$image" two sh -c "$stay"
  expect 0 'two +[0-9]+ +RUNNING' "${run[@]}" task ls
  expect 6 '^inside$' "${run[@]}" task exec --exec-id e1 two sh -c 'echo inside; exit 6'
  expect 0 '^uid=65534' "${run[@]}" task exec --exec-id e2 --user 65534 two id
  expect 2 '/dev/pts/[0-9]+' on_tty "${run[@]}" task exec -t --exec-id e3 two sh -c 'tty; exit 2'
  expect 0 'memory.limit_in_bytes +67108864|memory.usage +[0-9]' "${run[@]}" task metrics two
  expect 0 '' "${run[@]}" task pause two
  expect 0 'two +[0-9]+ +PAUSED' "${run[@]}" task ls
  expect 0 '' "${run[@]}" task resume two
  expect 0 '^[0-9]+' "${run[@]}" task ps two
  expect 0 '' "${run[@]}" task kill -s TERM two
  stopped() { "${run[@]}" task ls | grep -q 'two.*STOPPED'; }
  await stopped
  expect 0 'non-zero exit code 7' "${run[@]}" task rm two
  expect 0 '' "${run[@]}" container rm two
  expect 4 '/dev/pts/[0-9]+' on_tty "${start[@]}" --rm -t --cgroup "$parent/three" "$image" three sh -c 'tty; exit 4'
  expect 1 'executable file not found' "${start[@]}" --rm --cgroup "$parent/four" "$image" four nosuch
  expect 0 '^0000000000000000$' "${start[@]}" --rm --cgroup "$parent/five" --seccomp --cap-drop CAP_CHOWN --read-only "$image" five sh -c "awk '/CapAmb/{print \$2}' /proc/self/status"
  expect 0 '^[^0-9]*$' "${run[@]}" container ls -q
  ;;
*) echo "unknown caller $caller"; exit 2 ;;
esac
echo "$caller: $passed commands as expected, $failed not"
[ "$failed" = 0 ]
