#!/usr/bin/env bash
# One node of a measured cluster: namespaces of its own on a switch namespace, and an engine in it.
# swarm-node.sh net-up N | net-down N | start NAME | kill NAME. The caller sets BENCH_DIR (state) and ENGINE (a command that opens $DIR/docker.sock).
# Both engines run in nodes made by this same script: that is the point of it.
set -eu
command=$1 name=${2:-}
DIR=$BENCH_DIR/nodes/$name
case $command in
net-up)
  ip netns add shbench-sw
  ip -n shbench-sw link set lo up
  ip -n shbench-sw link add br0 type bridge
  ip -n shbench-sw link set br0 up
  for i in $(seq "$name"); do
    ip netns add "shbench$i"
    ip -n "shbench$i" link set lo up
    ip -n "shbench$i" link add eth0 type veth peer name "v$i" netns shbench-sw
    ip -n shbench-sw link set "v$i" master br0 up
    ip -n "shbench$i" addr add "10.66.0.$i/24" dev eth0
    ip -n "shbench$i" link set eth0 up
    ip -n "shbench$i" route add default via 10.66.0.254
  done ;;
net-down)
  for i in $(seq "$name"); do ip netns del "shbench$i" 2>/dev/null || true; done
  ip netns del shbench-sw 2>/dev/null || true ;;
start)
  mkdir -p "$DIR/etc-docker" "$DIR/data"
  rm -f "$DIR/docker.sock"
  echo 'nameserver 127.0.0.1' > "$BENCH_DIR/resolv.conf"
  for accounting in cpuacct cpu,cpuacct; do
    [ -d "/sys/fs/cgroup/$accounting" ] || continue
    mkdir -p "/sys/fs/cgroup/$accounting/shbench"
    echo $$ > "/sys/fs/cgroup/$accounting/shbench/cgroup.procs"
    break
  done
  export N=$name DIR BENCH_DIR ENGINE
  nsenter --net="/run/netns/$name" setsid unshare -m -p -f -u -i --propagation private --kill-child=KILL --mount-proc bash -c '
    hostname "$N"
    mount -t tmpfs tmpfs /run
    mkdir -p /run/docker /run/containerd /run/netns /run/lock /etc/docker
    mount --bind "$DIR/etc-docker" /etc/docker
    mount --bind "$BENCH_DIR/resolv.conf" /etc/resolv.conf
    sysctl -qw net.ipv4.ip_forward=1
    eval "$ENGINE" </dev/null >>"$DIR/engine.log" 2>&1 &
    wait $!
    echo "engine exited: $?" >>"$DIR/engine.log"
    while :; do sleep 3600 & wait $!; done' </dev/null >>"$DIR/node.log" 2>&1 &
  echo $! > "$DIR/unshare.pid"
  for _ in $(seq 600); do
    docker -H "unix://$DIR/docker.sock" version --format '{{.Server.Version}}' >/dev/null 2>&1 && exit 0
    sleep 0.05
  done
  echo "node $name did not come up" >&2
  tail -20 "$DIR/engine.log" >&2
  exit 1 ;;
kill)
  # The first process of the node's pid namespace: the kernel ends all the rest with it, as a power cut does.
  init=$(pgrep -P "$(cat "$DIR/unshare.pid")" || true)
  [ -z "$init" ] || kill -9 "$init" ;;
*) echo "swarm-node.sh: unknown command $command" >&2; exit 2 ;;
esac
