/** Goal: what a service asks for is what its container gets; signals, logs, events and filters are docker's. How: tasks print what they see, on three netns machines. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { until } from "./lib/command.ts";
import { type Holdings, holdings, leaked } from "./lib/leaks.ts";
import { at, Services } from "./lib/services.ts";
import { Swarm } from "./lib/swarm.ts";

let swarm: Swarm;
let services: Services;
let before: Holdings;
let m1 = "";
let w1 = "";

beforeAll(async () => {
  before = await holdings();
  swarm = await Swarm.create("inside", 1, 2);
  await swarm.loadBusybox();
  services = new Services(swarm);
  [m1 = "", w1 = ""] = swarm.machines;
  await services.docker("network", "create", "-d", "overlay", "front");
}, 120_000);
afterAll(async () => {
  await swarm?.destroy();
  expect(leaked(before, await holdings(), swarm.marks)).toEqual([]);
}, 120_000);

const once = ["--restart-condition", "none"];

describe.concurrent("inside the container", () => {
  test("limits are the cgroup's", async () => {
    const flags = ["--limit-memory", "48m", "--limit-cpu", "0.25", "--limit-pids", "40"];
    const look = [
      "cat /sys/fs/cgroup/memory/memory.limit_in_bytes",
      "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us",
      "cat /sys/fs/cgroup/cpu/cpu.cfs_period_us",
      "cat /sys/fs/cgroup/pids/pids.max",
    ];
    await services.create("limits", [...once, ...flags], "sh", "-c", look.join("; "));
    expect((await services.printed("limits", /^40$/m)).split("\n")).toEqual([
      String(48 * 1024 * 1024),
      "25000",
      "100000",
      "40",
    ]);
    // More memory than it may have: killed; more processes than it may have: refused.
    await services.create("hungry", [...once, "--limit-memory", "16m"], "tail", "/dev/zero");
    const killed = await services.until("hungry", "its end", ([row]) => {
      return row?.Status.State === "failed" ? (row.Status.Err ?? "") : null;
    });
    expect(killed).toMatch(/^task: non-zero exit \(137\)/);
    await services.create(
      "forks",
      [...once, "--limit-pids", "5"],
      "sh",
      "-c",
      "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait",
    );
    await services.printed("forks", /can't fork/);
  });

  test("env, host name, user, groups, directory, read-only root, tmpfs", async () => {
    const flags = ["--env", "A=1", "--env", "B=x y", "--hostname", "boat", "--user", "nobody"];
    const more = ["--group", "77", "--workdir", "/tmp/in", "--read-only"];
    const mount = ["--mount", "type=tmpfs,target=/scratch,tmpfs-size=1m,tmpfs-mode=1777"];
    const look =
      "env; hostname; id; pwd; touch /x; echo kept > /scratch/f && cat /scratch/f; df -k /scratch | tail -1";
    await services.create("self", [...once, ...flags, ...more, ...mount], "sh", "-c", look);
    const printed = await services.printed("self", /tmpfs +1024/);
    for (const line of ["A=1", "B=x y", "HOSTNAME=boat", "boat", "/tmp/in", "kept"]) {
      expect(printed.split("\n")).toContain(line);
    }
    expect(printed).toMatch(/uid=65534\(nobody\) gid=65534\(nogroup\) groups=.*\b77\b/);
    expect(printed).toContain("touch: /x: Read-only file system");
  });

  test("hosts, dns, ulimits, capabilities, sysctls, labels", async () => {
    const flags = ["--host", "db:1.2.3.4", "--dns", "192.0.2.9", "--dns-search", "ex.org"];
    const more = [
      "--dns-option",
      "ndots:3",
      "--ulimit",
      "nofile=123:456",
      "--cap-add",
      "NET_ADMIN",
    ];
    const rest = ["--cap-drop", "CHOWN", "--sysctl", "net.ipv4.ip_unprivileged_port_start=99"];
    const look =
      "cat /etc/hosts /etc/resolv.conf; ulimit -n; ulimit -H -n; grep CapBnd /proc/self/status; cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
    await services.create(
      "kernel",
      [...flags, ...more, ...rest, "--network", "front", "--container-label", "team=a"],
      "sh",
      "-c",
      `${look}; sleep 1d`,
    );
    const printed = await services.printed("kernel", /^99$/m);
    for (const line of [
      "1.2.3.4\tdb",
      "nameserver 127.0.0.11",
      "search ex.org",
      "options ndots:3",
      "123",
      "456",
    ]) {
      expect(printed.split("\n")).toContain(line);
    }
    // Docker's fourteen with NET_ADMIN, without CHOWN.
    expect(printed).toMatch(/CapBnd:\t00000000a80435fa/);
    const hosts = await services.hosts();
    const [row] = await services.settled("kernel", 1);
    const machine = hosts.get(row?.NodeID ?? "") ?? "";
    const container = (await services.containers(machine)).find(
      (one) => one.Labels["com.docker.swarm.task.id"] === row?.ID,
    );
    expect(container?.Labels["team"]).toBe("a");
    expect(container?.Names).toEqual([`/kernel.1.${row?.ID}`]);
  });

  test("bind mounts show the node's folder, read-only ones refuse", async () => {
    const source = swarm.storage;
    const mounts = [
      "--mount",
      `type=bind,source=${source},target=/host`,
      "--mount",
      `type=bind,source=${source},target=/fixed,readonly`,
    ];
    const look = "touch /host/was-here && ls /fixed | grep was-here; touch /fixed/no; echo $?";
    await services.create("binds", [...once, ...mounts], "sh", "-c", look);
    expect((await services.printed("binds", /^1$/m)).split("\n")).toEqual([
      "was-here",
      "1",
      "touch: /fixed/no: Read-only file system",
    ]);
    await services.create("no-source", [...once, "--mount", "type=bind,source=/no/such,target=/x"]);
    const reason = await services.until("no-source", "a refusal", ([row]) => {
      return row?.Status.State === "rejected" ? (row.Status.Err ?? "") : null;
    });
    expect(reason).toBe(
      'invalid mount config for type "bind": bind source path does not exist: /no/such',
    );
  });
});

describe.concurrent("what a container cannot have is told", () => {
  for (const { what, flags, reason } of [
    { what: "stop signal", flags: ["--stop-signal", "FOO"], reason: "invalid signal: FOO" },
    {
      what: "user",
      flags: ["--user", "nosuch"],
      reason: "unable to find user nosuch: no matching entries in passwd file",
    },
    {
      what: "group",
      flags: ["--group", "nosuch"],
      reason: "unable to find group nosuch: no matching entries in group file",
    },
  ]) {
    test(`${what}: rejected before it is made`, async () => {
      const name = `no-${what.replace(" ", "-")}`;
      await services.create(name, [...once, ...flags]);
      const said = await services.until(name, "a refusal", ([row]) =>
        row?.Status.State === "rejected" ? (row.Status.Err ?? "") : null,
      );
      expect(said).toBe(reason);
      await services.remove(name);
      await services.containersGone(name);
    });
  }
});

describe.concurrent("stopping", () => {
  const loop = "while :; do sleep 0.05; done";

  test("the stop signal comes, the grace is the task's, its last words are kept", async () => {
    const trap = "trap 'echo got term; sleep 1; echo bye; exit 7' TERM; echo up";
    await services.create("polite", ["--stop-grace-period", "9s"], "sh", "-c", `${trap}; ${loop}`);
    await services.create(
      "usr1",
      ["--stop-signal", "USR1"],
      "sh",
      "-c",
      `trap 'echo got usr1; exit 3' USR1; echo up; ${loop}`,
    );
    await services.create(
      "deaf",
      ["--stop-grace-period", "1s"],
      "sh",
      "-c",
      `trap '' TERM; echo up; ${loop}`,
    );
    for (const name of ["polite", "usr1", "deaf"]) {
      await services.settled(name, 1);
      await services.printed(name, /^up$/m);
    }
    const started = Date.now();
    // Replaced, so that the old task's row stays to be read.
    for (const name of ["polite", "usr1", "deaf"])
      await services.update(name, "--args", "sleep 1d", "--stop-signal", "KILL");
    const ended = async (name: string) =>
      await services.until(name, "the old task's end", (rows) => {
        return rows.find((row) => row.Status.State === "shutdown") ?? null;
      });
    const polite = await ended("polite");
    expect(polite.Status.ContainerStatus?.ExitCode).toBe(7);
    expect((await ended("usr1")).Status.ContainerStatus?.ExitCode).toBe(3);
    const deaf = await ended("deaf");
    expect(deaf.Status.ContainerStatus?.ExitCode).toBe(137);
    expect(at(deaf.Status.Timestamp) - started).toBeGreaterThan(950);
    expect(at(deaf.Status.Timestamp) - started).toBeLessThan(4_000);
    expect(await services.printed("polite", /^bye$/m)).toContain("got term\nbye");
    expect(await services.printed("usr1", /^got usr1$/m)).toContain("got usr1");
    await services.remove("polite", "usr1", "deaf");
    for (const name of ["polite", "usr1", "deaf"]) await services.containersGone(name);
  });
});

describe.concurrent("what docker tells", () => {
  test("logs of tasks on all nodes: follow takes up new tasks, tail, since and timestamps", async () => {
    const count =
      "i=0; while [ $i -lt 5 ]; do i=$((i+1)); echo line $i; echo err $i >&2; done; sleep 1d";
    await services.create("talk", ["--replicas", "3"], "sh", "-c", count);
    const rows = await services.settled("talk", 3);
    const follower = spawn("docker", ["service", "logs", "-f", "talk"], {
      env: {
        ...process.env,
        DOCKER_HOST: `unix://${swarm.socket(m1)}`,
        DOCKER_CONFIG: join(swarm.storage, "docker-config"),
      },
    });
    let followed = "";
    follower.stdout.on("data", (chunk) => {
      followed += String(chunk);
    });
    try {
      await until("fifteen lines", async () =>
        (followed.match(/\| line /g)?.length ?? 0) === 15 ? true : null,
      );
      const hosts = await services.hosts();
      for (const row of rows) {
        expect(followed).toContain(
          `talk.${row.Slot}.${row.ID.slice(0, 12)}@${hosts.get(row.NodeID ?? "")}`,
        );
      }
      await services.docker("service", "scale", "-d", "talk=4");
      await until("the new task's lines", async () =>
        /talk\.4\.\w+@\S+ +\| line 5/.test(followed) ? true : null,
      );
    } finally {
      follower.kill("SIGTERM");
    }
    // Of each task the last line, whichever stream it is of.
    const tail = await swarm.dockerRun(m1, ["service", "logs", "--raw", "--tail", "1", "talk"]);
    const last = (tail.out + tail.err).trimEnd().split("\n");
    expect(last).toHaveLength(4);
    for (const line of last) expect(["line 5", "err 5"]).toContain(line);
    const stamped = await services.docker("service", "logs", "--raw", "-t", "talk");
    expect(stamped.split("\n")[0]).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z line \d$/);
    expect(
      await services.docker("service", "logs", "--raw", "--since", "2031-01-01T00:00:00Z", "talk"),
    ).toBe("");
    const task = rows[0]?.ID ?? "";
    expect((await services.docker("service", "logs", "--raw", task)).split("\n")).toEqual([
      "line 1",
      "line 2",
      "line 3",
      "line 4",
      "line 5",
    ]);
    await services.remove("talk");
  });

  test("events of services, networks, nodes and containers, with what changed", async () => {
    const since = String(Math.floor(Date.now() / 1_000));
    await services.create("news", ["--constraint", "node.role==manager"]);
    await services.settled("news", 1);
    await services.docker("service", "scale", "-d", "news=2");
    await services.settled("news", 2);
    await services.docker("node", "update", "--label-add", "seen=1", w1);
    await services.remove("news");
    await services.containersGone("news");
    const format = "{{.Type}} {{.Action}} {{json .Actor.Attributes}}";
    const seen = await until("the container's end among the events", async () => {
      const text = await services.docker(
        "events",
        "--since",
        since,
        "--until",
        String(Math.ceil(Date.now() / 1_000) + 1),
        "--format",
        format,
      );
      return /container destroy .*news/.test(text) ? text : null;
    });
    expect(seen).toMatch(/^service create .*"name":"news"/m);
    expect(seen).toMatch(/^service update .*"replicas.new":"2","replicas.old":"1"/m);
    expect(seen).toMatch(/^service remove .*"name":"news"/m);
    expect(seen).toMatch(new RegExp(`^node update .*"name":"${w1}"`, "m"));
    for (const action of ["create", "start", "kill", "die", "destroy"]) {
      expect(seen).toMatch(
        new RegExp(`^container ${action} .*"com.docker.swarm.service.name":"news"`, "m"),
      );
    }
  });

  test("service ps and node ps: filters", async () => {
    await services.create("list", ["--replicas", "3"]);
    const rows = await services.settled("list", 3);
    const hosts = await services.hosts();
    const ps = async (...args: string[]) =>
      (await services.docker("service", "ps", "-q", "--no-trunc", ...args))
        .split("\n")
        .filter(Boolean)
        .sort();
    const ids = rows.map((row) => row.ID).sort();
    const [first] = rows;
    const host = hosts.get(first?.NodeID ?? "") ?? "";
    const there = rows.filter((row) => row.NodeID === first?.NodeID).map((row) => row.ID);
    expect(await ps("list")).toEqual(ids);
    expect(await ps("--filter", "desired-state=running", "list")).toEqual(ids);
    expect(await ps("--filter", "desired-state=shutdown", "list")).toEqual([]);
    expect(await ps("--filter", `node=${host}`, "list")).toEqual(there.sort());
    expect(await ps("--filter", "name=list.2", "list")).toEqual(
      rows.filter((row) => row.Slot === 2).map((row) => row.ID),
    );
    expect(await ps("--filter", `id=${first?.ID}`, "list")).toEqual([first?.ID]);
    const onNode = await services.docker(
      "node",
      "ps",
      "-q",
      "--no-trunc",
      "--filter",
      "name=list",
      host,
    );
    expect(onNode.split("\n").filter(Boolean).sort()).toEqual(there.sort());
    const refused = await swarm.dockerRun(m1, ["service", "ps", "--filter", "colour=red", "list"]);
    expect(refused.code).toBe(1);
    await services.remove("list");
  });
});
