/** The engine over the real native core: containers as docker would make them, found again after every crash. Needs root and the built core. */
import { mkdtemp, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ContainerBackend, ImageBackend } from "../src/api/backend.ts";
import type { ContainerRequest } from "../src/engine/container-request.ts";
import { systemClock } from "../src/io/system-clock.ts";
import { silentLog } from "../src/lib/log.ts";
import type { ContainerSpec } from "../src/model/task.ts";
import { aNetwork, aTaskSpec } from "../src/model/testing/rows.ts";
import type { AssignedTask, NetworkPeer } from "../src/wire/session.ts";
import { containerIdOf } from "../src/worker/container-id.ts";
import { createEngineExecutor } from "../src/worker/engine-executor.ts";
import { createNetworkApply } from "../src/worker/network-apply.ts";
import { busyboxArchive, busyboxRoot, stream } from "./busybox-image.ts";
import { destroy, type EngineNode, leave, missing, open } from "./engine-node.ts";

function request(name: string, over: Partial<ContainerSpec> = {}): ContainerRequest {
  const { container } = aTaskSpec();
  return {
    id: containerIdOf(name),
    name,
    spec: { ...container, image: "busybox:test", ...over },
    labels: {},
    limits: null,
    logDriver: null,
    networks: [],
  };
}

async function outputOf(node: EngineNode, id: string, follow = false): Promise<string> {
  let text = "";
  const query = { stdout: true, stderr: true, tail: -1, sinceNs: null, untilNs: null };
  const { signal } = new AbortController();
  for await (const line of node.engine.logs(id, { ...query, follow, signal })) {
    text += new TextDecoder().decode(line.line);
  }
  return text;
}

async function run(
  node: EngineNode,
  name: string,
  script: string,
  over: Partial<ContainerSpec> = {},
) {
  const made = request(name, { command: ["sh", "-c", script], ...over });
  await node.engine.create(made);
  await node.engine.start(made.id);
  const exit = await node.engine.wait(made.id, new AbortController().signal);
  const output = await outputOf(node, made.id);
  await node.engine.remove(made.id, false);
  return { exit, output };
}

describe.skipIf(missing !== null)(`engine over the native core (needs: ${missing})`, () => {
  let node: EngineNode;
  let root: string;

  beforeAll(async () => {
    root = await mkdtemp("/tmp/shoal-engine-");
    node = await open(root);
    for await (const line of node.images.load(stream(await busyboxArchive("busybox:test")))) {
      expect(line).toBe("Loaded image: busybox:test");
    }
  });

  afterAll(async () => {
    if (node !== undefined) await destroy(node);
  });

  test("engine and images are what the Engine API needs", () => {
    const containers: ContainerBackend = node.engine;
    const images: ImageBackend = node.images;
    expect([containers, images]).toHaveLength(2);
  });

  test("a container runs as docker would run it", async () => {
    const script = `id; hostname; echo "$PATH|$HOME|$A"; cat /etc/hosts; grep CapEff /proc/self/status;
      touch /x && echo rw; cat /proc/1/comm; ls /proc/kcore >/dev/null; echo err >&2; exit 7`;
    const { exit, output } = await run(node, "plain", script, { env: ["A=1"] });
    expect(exit).toMatchObject({ exitCode: 7, known: true, oomKilled: false });
    const id = containerIdOf("plain").slice(0, 12);
    expect(output).toContain("uid=0(root) gid=0(root)");
    expect(output).toContain(`\n${id}\n`);
    expect(output).toContain("/bin|/root|1\n");
    expect(output).toContain("127.0.0.1\tlocalhost");
    expect(output).toContain("CapEff:\t00000000a80425fb");
    expect(output).toContain("rw\n");
    expect(output).toContain("err\n");
  });

  test("a named user gets its groups, a read-only root is one", async () => {
    const { output } = await run(node, "user", "id; touch /x 2>&1; true", {
      user: "web",
      readOnly: true,
    });
    expect(output).toContain("uid=33(web) gid=34(web) groups=34(web),55(log)");
    expect(output).toContain("Read-only file system");
  });

  test("what cannot run is refused in docker's words", async () => {
    const unknown = request("x", { image: "nothere" });
    await expect(node.engine.create(unknown)).rejects.toThrow("No such image: nothere");
    await expect(node.engine.create(request("y", { user: "bob" }))).rejects.toThrow(
      "unable to find user bob: no matching entries in passwd file",
    );
    const bind = { kind: "bind" as const, source: "/no/such", target: "/t", readOnly: false };
    const mounts = [{ ...bind, propagation: null, sizeBytes: null, mode: null }];
    await expect(node.engine.create(request("z", { mounts }))).rejects.toThrow(
      'invalid mount config for type "bind": bind source path does not exist: /no/such',
    );
    const noCommand = request("w", { command: ["/no/such/command"] });
    await node.engine.create(noCommand);
    await expect(node.engine.start(noCommand.id)).rejects.toThrow(/no such file|not found/i);
    const exit = await node.engine.wait(noCommand.id, new AbortController().signal);
    expect(exit.exitCode).toBe(127);
    await node.engine.remove(noCommand.id, false);
  });

  test("stop asks, then kills", async () => {
    const polite = request("polite", {
      command: ["sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done"],
    });
    await node.engine.create(polite);
    await node.engine.start(polite.id);
    await expect.poll(() => outputOf(node, polite.id)).toContain("up");
    await node.engine.stop(polite.id, 5_000);
    expect((await node.engine.get("polite")).exitCode).toBe(3);
    expect(await outputOf(node, polite.id, true)).toBe("up\nbye\n");

    const deaf = request("deaf", {
      command: ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"],
    });
    await node.engine.create(deaf);
    await node.engine.start(deaf.id);
    const top = await node.engine.top("deaf", "");
    expect(top.titles).toContain("PID");
    expect(top.processes.length).toBeGreaterThan(0);
    await node.engine.stop(deaf.id, 50);
    expect((await node.engine.get("deaf")).exitCode).toBe(137);
    await node.engine.remove(polite.id, false);
    await node.engine.remove(deaf.id, false);
    await expect(node.engine.get("deaf")).rejects.toThrow("No such container: deaf");
  });

  test("memory limit kills, and says so", async () => {
    const made = request("oom", { command: ["sh", "-c", "x=a; while :; do x=$x$x; done"] });
    await node.engine.create({
      ...made,
      limits: { nanoCpus: 0, memoryBytes: 16 * 1024 * 1024, pids: 20 },
    });
    await node.engine.start(made.id);
    const exit = await node.engine.wait(made.id, new AbortController().signal);
    expect(exit.exitCode).not.toBe(0);
    await node.engine.remove(made.id, false);
  });

  test("a restarted engine finds what runs, and the code of what ended meanwhile", async () => {
    const long = request("long", { command: ["sleep", "300"] });
    const short = request("short", { command: ["sh", "-c", "sleep 0.2; exit 5"] });
    for (const item of [long, short]) {
      await node.engine.create(item);
      await node.engine.start(item.id);
    }
    const { pid } = await node.engine.get("long");
    leave(node);
    node = await open(root);
    expect(await node.engine.get("long")).toMatchObject({ state: "running", pid });
    const exit = await node.engine.wait(short.id, new AbortController().signal);
    expect(exit).toMatchObject({ exitCode: 5, known: true });
    // The same request again makes nothing new.
    await node.engine.create(long);
    expect((await node.engine.get("long")).pid).toBe(pid);

    // And so after the core was killed.
    const core = node.native.identity?.pid ?? 0;
    const again = new Promise<void>((resolve) => {
      node.native.onConnected(() => {
        if (node.native.identity?.pid !== core) resolve();
      });
    });
    process.kill(core, "SIGKILL");
    await again;
    await expect.poll(async () => (await node.engine.get("long")).state).toBe("running");
    await node.engine.stop(long.id, 0);
    expect((await node.engine.get("long")).exitCode).toBe(137);
    await node.engine.remove(long.id, false);
    await node.engine.remove(short.id, false);
  });

  test("an image that is used stays; one that is not goes with its layers", async () => {
    const held = request("held", { command: ["sleep", "300"] });
    await node.engine.create(held);
    const options = { force: false, prune: true };
    await expect(node.images.remove("busybox:test", options)).rejects.toThrow(
      /conflict: unable to remove repository reference "busybox:test" \(must force\) - container/,
    );
    await node.engine.remove(held.id, true);
    const id = await node.images.importRoot(stream(await busyboxRoot()), {
      reference: "other:1",
      changes: ['CMD ["echo","hi"]'],
      message: "imported",
      platform: null,
    });
    const made = request("imported", { image: "other:1" });
    await node.engine.create(made);
    await node.engine.start(made.id);
    await node.engine.wait(made.id, new AbortController().signal);
    expect(await outputOf(node, made.id)).toBe("hi\n");
    await node.engine.remove(made.id, false);
    expect(await node.images.remove("other:1", options)).toEqual([
      { untagged: "other:1" },
      { deleted: id },
    ]);
    // The same layer is still the other image's.
    expect(await readdir(join(root, "data", "layers", "sha256"))).toHaveLength(1);
  });

  test("tasks on one network find each other by name", async () => {
    const network = aNetwork("net1", { vni: 0xfff001 });
    const networks = createNetworkApply({
      native: node.native,
      clock: systemClock,
      log: silentLog,
      upstreams: async () => [],
    });
    const executor = createEngineExecutor(node.engine);
    const task = (id: string, address: string, script: string): AssignedTask => ({
      id,
      serviceId: "s",
      serviceName: id,
      slot: 1,
      nodeId: "n1",
      spec: aTaskSpec({
        container: {
          ...aTaskSpec().container,
          image: "busybox:test",
          command: ["sh", "-c", script],
        },
      }),
      desired: "running",
      attachments: [
        {
          networkId: "net1",
          address,
          prefixLength: 24,
          mac: `02:42:0a:00:01:0${address.at(-1)}`,
          aliases: [],
        },
      ],
      serviceLabels: {},
    });
    const server = task("server", "10.0.1.2", "cat /etc/resolv.conf; sleep 300");
    const client = task("client", "10.0.1.3", "nslookup tasks.server; ping -c1 -w2 server");
    const peer = (item: AssignedTask): NetworkPeer => ({
      key: `net1/${item.id}`,
      networkId: "net1",
      taskId: item.id,
      nodeId: "n1",
      nodeAddress: "127.0.0.1",
      address: item.attachments[0]?.address ?? "",
      mac: item.attachments[0]?.mac ?? "",
      serviceName: item.serviceName,
      containerName: `${item.id}.1.x`,
      aliases: [],
      named: true,
    });
    networks.assign({
      revision: 1,
      nodeId: "n1",
      localAddress: "127.0.0.1",
      dataPathPort: 4790,
      networks: [network],
      peers: [peer(server), peer(client)],
    });
    networks.start();
    for (const item of [server, client]) {
      const { signal } = new AbortController();
      await executor.prepare(item, signal);
      await networks.prepare(item);
      const { containerId } = await executor.create(item, [network]);
      await networks.attach(item, containerId);
      await executor.start(item.id);
    }
    const exit = await executor.wait("client", new AbortController().signal);
    const output = await outputOf(node, containerIdOf("client"));
    expect(output).toContain("10.0.1.2");
    expect({ code: exit.exitCode, output }).toMatchObject({ code: 0 });
    expect(await outputOf(node, containerIdOf("server"))).toContain("nameserver 127.0.0.11");
    for (const item of [server, client]) {
      await executor.shutdown(item.id, 0);
      networks.release(item.id);
      await executor.remove(item.id);
    }
    await expect
      .poll(async () => (await node.native.call("network-dump", {})).sandboxes)
      .toEqual([]);
    networks.stop();
  });

  test("nothing is left of removed containers", async () => {
    expect(await node.engine.list()).toEqual([]);
    expect((await node.native.call("list", {})).containers).toEqual([]);
    expect(await readdir(join(root, "data", "containers"))).toEqual([]);
    const mounts = await readFile("/proc/self/mountinfo", "utf8");
    expect(mounts).not.toContain(join(root, "data"));
  });
});
