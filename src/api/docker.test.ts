/** Goal: the docker command that people have reads our answers. How: it runs against the server, and what it prints is compared. */
import { execFile, execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { defaultUpdate } from "../model/defaults.ts";
import { ids } from "./testing/fake-backend.ts";
import { type Served, serve } from "./testing/serve.ts";

const clientVersion = versionOfDocker();
const needsDocker =
  clientVersion === null
    ? " [SKIPPED: there is no docker command on PATH (Debian: docker.io or docker-cli)]"
    : "";

let served: Served;
beforeEach(async () => {
  served = await serve();
});
afterEach(() => served.close());

const words: readonly (readonly [string, readonly (string | RegExp)[]])[] = [
  [
    "version",
    [/Version:\s+0\.1\.0/, /API version:\s+1\.50 \(minimum version 1\.24\)/, "shoal-core"],
  ],
  [
    "info",
    [
      "Swarm: active",
      `NodeID: ${ids.node}`,
      "Is Manager: true",
      "Nodes: 2",
      "Server Version: 0.1.0",
    ],
  ],
  [
    "node ls",
    [new RegExp(`${ids.node} \\*\\s+m1\\s+Ready\\s+Active\\s+Leader\\s+0\\.1\\.0`), /w1\s+Ready/],
  ],
  [
    "node inspect --pretty m1",
    ["Leader:\t\tYes", "TLS Info:", "zone=a", "MBMxETAPBgNVBAMTCHN3YXJtLWNh"],
  ],
  ["node ps m1", [/web\.1\s+busybox:latest\s+m1\s+Running/]],
  ["service ls", [/web\s+replicated\s+1\/2\s+busybox:latest/, /everywhere\s+global\s+0\/0/]],
  ["service ps web", [/web\.1\s+busybox:latest\s+m1\s+Running/, "no suitable node"]],
  [
    "service inspect --pretty web",
    ["Service Mode:	Replicated", "Replicas:	2", "On failure:	pause", "State:		completed"],
  ],
  ["service inspect web", ['"StopGracePeriod": 10000000000']],
  ["network ls", [/ov1\s+overlay\s+swarm/, /host\s+host\s+local/]],
  ["network inspect ov1", ["10.0.1.0/24", "4096", "10.0.1.5/24"]],
  ["images", [/busybox\s+latest\s+3f04faf6d109/]],
  ["image inspect busybox", ['"Architecture": "amd64"']],
  ["history busybox", ["ADD file"]],
  ["ps", [/69bbddcba3ec\s+busybox:latest\s+"sleep 1000"\s+\S.*Up 6 seconds/]],
  ["ps -a", ["Exited (137) 3 seconds ago"]],
  ["top 69bbddcba3ec", [/UID\s+PID\s+CMD/]],
  ["system df", [/Images\s+1/]],
  ["swarm join-token worker", ["docker swarm join --token SWMTKN-1-"]],
  ["inspect everywhere", ['"Name": "everywhere"']],
  ["stack ls", [/st\s+1/]],
  ["stack services st", [/everywhere/]],
  ["plugin ls", ["ENABLED"]],
  ["volume ls", ["VOLUME NAME"]],
  ["secret ls", ["NAME"]],
];
test.skipIf(clientVersion === null).each(words)(
  `docker %s${needsDocker}`,
  async (command, expected) => {
    const { code, output } = await docker(...command.split(" "));
    expect({ code, output }).toMatchObject({ code: 0 });
    for (const word of expected) {
      if (typeof word === "string") expect(output).toContain(word);
      else expect(output).toMatch(word);
    }
  },
);

test.skipIf(clientVersion === null)(
  `docker service logs names its tasks${needsDocker}`,
  async () => {
    served.world.logLines = [
      {
        taskId: ids.task,
        serviceId: ids.service,
        nodeId: ids.node,
        stream: "stdout",
        time: "2026-11-20T15:00:00Z",
        line: Buffer.from("tick\n"),
      },
    ];
    const { code, output } = await docker("service", "logs", "web");
    expect(code).toBe(0);
    expect(output).toMatch(/^web\.1\.0nyurebyh5gb@m1\s+\| tick$/m);
  },
);

test.skipIf(clientVersion === null)(
  `docker service create, update, scale and rollback send specs that we take${needsDocker}`,
  async () => {
    const flags =
      "--detach --name web --replicas 3 --network ov1 --env A=b --label l=m --container-label c=d --constraint node.role==worker --limit-memory 64m --reserve-cpu 0.5 --restart-condition on-failure --restart-max-attempts 3 --update-parallelism 2 --update-delay 10s --rollback-order start-first --mount type=bind,source=/srv,target=/srv --mount type=tmpfs,target=/t,tmpfs-size=1m --stop-grace-period 3s --cap-add NET_ADMIN --ulimit nofile=10:20 --host h:1.2.3.4 --dns 8.8.8.8 --sysctl a.b=1 --read-only --user 1 --workdir /w --hostname hh --placement-pref spread=node.labels.zone --replicas-max-per-node 2 --endpoint-mode dnsrr --oom-score-adj 7 busybox:latest sleep 1";
    const created = await docker("service", "create", ...flags.split(" "));
    expect(created).toMatchObject({ code: 0 });
    expect(created.output).toContain(ids.service);
    expect((await docker("service", "update", "--detach", "--env-add", "C=d", "web")).code).toBe(0);
    expect((await docker("service", "scale", "--detach", "web=5")).code).toBe(0);
    expect((await docker("service", "rollback", "--detach", "web")).code).toBe(0);
    expect(served.world.calls).toMatchObject([
      {
        name: "services.create",
        value: {
          mode: { replicas: 3 },
          endpointMode: "dnsrr",
          task: {
            container: {
              hostname: "hh",
              mounts: [{ kind: "bind" }, { kind: "tmpfs", sizeBytes: 1_048_576 }],
            },
            placement: { maxReplicas: 2, spreadOver: ["node.labels.zone"] },
            networks: [{ target: ids.network }],
          },
        },
      },
      { name: "services.update", value: { spec: { task: { container: { env: ["C=d"] } } } } },
      { name: "services.update", value: { spec: { mode: { replicas: 5 } } } },
      { name: "services.update", value: { spec: null, options: { rollback: true } } },
    ]);
  },
);

test.skipIf(clientVersion === null)(`docker's errors are our messages${needsDocker}`, async () => {
  const ports = await docker("service", "create", "--detach", "-p", "80:80", "busybox");
  expect(ports.code).toBe(1);
  expect(ports.output).toContain(
    "Error response from daemon: service create: published ports are not supported yet",
  );
  const run = await docker("run", "busybox", "true");
  expect(run.code).not.toBe(0);
  expect(run.output).toContain("containers/create is not supported by this version of shoal");
  const pull = await docker("pull", "busybox");
  expect(pull.output).toContain("is not supported yet; bring the image with");
});

test.skipIf(clientVersion === null)(
  `docker load, import, rmi, tag and events${needsDocker}`,
  async () => {
    const good = join(served.folder, "good.tar");
    writeFileSync(good, "good");
    expect((await docker("load", "-i", good)).output).toBe(
      "Loaded image: busybox:latest\nLoaded image: other:1\n",
    );
    // Longer than any buffer on the way: the answer comes while the client still sends.
    const refused = join(served.folder, "refused.tar");
    writeFileSync(refused, "refuse".padEnd(2 ** 24, "x"));
    const load = await docker("load", "-i", refused);
    expect(load.code).toBe(1);
    expect(load.output).toContain("Error response from daemon: not an archive");
    expect((await docker("import", good, "x:1")).output).toBe(`${ids.image}\n`);
    expect((await docker("tag", "busybox", "b:2")).code).toBe(0);
    expect((await docker("rmi", "-f", "busybox")).output).toContain(`Deleted: ${ids.image}`);
    expect((await docker("events", "--since", "1", "--until", "2")).code).toBe(0);
  },
);

test.skipIf(clientVersion === null)(
  `docker swarm, node and network verbs reach the backend${needsDocker}`,
  async () => {
    for (const command of [
      "swarm init --advertise-addr 192.0.2.1 --autolock --availability drain",
      "swarm join --token T 192.0.2.9:2377",
      "swarm update --task-history-limit 3 --dispatcher-heartbeat 9s",
      "swarm join-token --rotate worker",
      "swarm leave --force",
      "node update --availability drain --label-add a=b w1",
      "node promote w1",
      "node rm --force w1",
      "network create -d overlay --attachable --subnet 10.9.0.0/24 --gateway 10.9.0.1 --opt com.docker.network.driver.mtu=1400 net",
      "network rm ov1",
      "service rm web",
    ]) {
      expect({ command, ...(await docker(...command.split(" "))) }).toMatchObject({ code: 0 });
    }
    expect(served.world.calls).toMatchObject([
      { name: "swarm.init", value: { autoLockManagers: true, availability: "drain" } },
      { name: "swarm.join", value: { joinToken: "T", remoteAddresses: ["192.0.2.9:2377"] } },
      { name: "swarm.update", value: { spec: { taskHistoryLimit: 3, heartbeatPeriodNs: 9e9 } } },
      {
        name: "swarm.update",
        value: { version: 12, rotate: { workerToken: true, managerToken: false } },
      },
      { name: "swarm.leave", value: true },
      { name: "nodes.update", value: { spec: { availability: "drain", labels: { a: "b" } } } },
      { name: "nodes.update", value: { spec: { role: "manager" } } },
      { name: "nodes.remove", value: { id: ids.worker, force: true } },
      {
        name: "networks.create",
        value: {
          attachable: true,
          subnet: "10.9.0.0/24",
          gateway: "10.9.0.1",
          driverOptions: { "com.docker.network.driver.mtu": "1400" },
        },
      },
      { name: "networks.remove" },
      { name: "services.remove", value: ids.service },
    ]);
    const bridge = await docker("network", "create", "net");
    expect(bridge.output).toContain(
      "network create: networks of driver bridge are not supported yet",
    );
  },
);

test.skipIf(clientVersion === null)(
  `docker service create waits until the tasks run and then ends${needsDocker}`,
  async () => {
    const { world } = served;
    const [service] = world.services;
    const [running] = world.tasks;
    if (service === undefined || running === undefined) throw new Error("the world has a service");
    // One millisecond of monitoring, so that docker does not wait five seconds for the tasks to stay up.
    const update = { ...defaultUpdate, monitorNs: 1_000_000 };
    world.services = [{ ...service, spec: { ...service.spec, update }, updateStatus: null }];
    world.tasks = [running, { ...running, id: ids.pending, slot: 2 }];
    const { code, output } = await docker("service", "create", "--name", "web", "busybox");
    expect({ code, output }).toMatchObject({ code: 0 });
    expect(output).toContain("overall progress: 2 out of 2 tasks");
    expect(output).toContain(`Service ${ids.service} converged`);
  },
);

function docker(
  ...args: readonly string[]
): Promise<{ readonly code: number; readonly output: string }> {
  const env = {
    PATH: process.env["PATH"] ?? "",
    HOME: served.folder,
    DOCKER_CONFIG: served.folder,
  };
  return new Promise((resolve) => {
    execFile(
      "docker",
      ["-H", `unix://${served.socketPath}`, ...args],
      { env, timeout: 20_000 },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === "number" ? error.code : 255;
        resolve({ code, output: stdout + stderr });
      },
    );
  });
}

function versionOfDocker(): string | null {
  try {
    return execFileSync("docker", ["--version"], { encoding: "utf8" });
  } catch {
    // Without a docker command the tests say that they were skipped.
    return null;
  }
}
