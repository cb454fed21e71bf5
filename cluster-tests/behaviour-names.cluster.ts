/** Goal: names and addresses on overlay networks are those of the tasks that run, on every node at once. How: tasks on three netns machines ask their resolver while others come, die and go. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { until } from "./lib/command.ts";
import { type Holdings, holdings, leaked } from "./lib/leaks.ts";
import { addressesOf, at, isRunning, Services } from "./lib/services.ts";
import { Swarm } from "./lib/swarm.ts";

let swarm: Swarm;
let services: Services;
let before: Holdings;
let m1 = "";
let w1 = "";
let w2 = "";

beforeAll(async () => {
  before = await holdings();
  swarm = await Swarm.create("names", 1, 2);
  await swarm.loadBusybox();
  services = new Services(swarm);
  [m1 = "", w1 = "", w2 = ""] = swarm.machines;
  await services.docker("network", "create", "-d", "overlay", "front");
  await services.docker("network", "create", "-d", "overlay", "--internal", "back");
}, 120_000);
afterAll(async () => {
  await swarm?.destroy();
  expect(leaked(before, await holdings(), swarm.marks)).toEqual([]);
}, 120_000);

const once = ["--restart-condition", "none"];

/** The distinct addresses that `name` has for a task of `service`, which prints them over and over. */
function asksFor(name: string): readonly string[] {
  const ask = `nslookup -type=a ${name} 2>/dev/null | grep '^Address: [0-9.]*$' | cut -d' ' -f2 | sort`;
  return ["sh", "-c", `while :; do echo "at" $(${ask}) "end"; sleep 0.1; done`];
}

describe("names and addresses", () => {
  test("service name, tasks.NAME, alias and container names answer on every node, on their networks only", async () => {
    await services.create("web", ["--replicas", "3", "--network", "name=front,alias=www"]);
    const rows = await services.settled("web", 3);
    const addresses = rows.flatMap(addressesOf).sort();
    expect(new Set(addresses).size).toBe(3);
    const [first] = rows;
    const names = ["web", "tasks.web", "www", "WEB"];
    const ask = names.map(
      (name) =>
        `nslookup -type=a ${name} | grep '^Address: [0-9.]*$' | cut -d' ' -f2 | sort | tr '\\n' ' '; echo ${name}`,
    );
    const container = `nslookup -type=a web.1.${first?.ID} | grep '^Address: [0-9.]*$' | cut -d' ' -f2; echo done`;
    await services.create(
      "asks",
      [...once, "--mode", "global", "--network", "front"],
      "sh",
      "-c",
      [...ask, container].join("; "),
    );
    const printed = await until("all three to have asked", async () => {
      const text = await services.docker("service", "logs", "--raw", "asks");
      return (text.match(/^done$/gm)?.length ?? 0) === 3 ? text : null;
    });
    const all = [...addresses].sort().join(" ");
    for (const name of names) {
      const lines = printed.split("\n").filter((line) => line.endsWith(` ${name}`));
      expect(lines.map((line) => line.slice(0, -name.length).trim())).toEqual([all, all, all]);
    }
    const own = addressesOf(first ?? rows[0] ?? ({} as never))[0] ?? "";
    expect(printed.split("\n").filter((line) => line === own).length).toBe(3);
    // Another network does not know them.
    await services.create(
      "stranger",
      [...once, "--network", "back"],
      "sh",
      "-c",
      "nslookup web; echo code $?; ip route | grep -c default; echo done",
    );
    const strange = await services.printed("stranger", /^done$/m);
    expect(strange).toMatch(/NXDOMAIN|can't find/);
    expect(strange).toContain("code 1");
    // An internal network leads nowhere else.
    expect(strange.split("\n")).toContain("0");
    await services.remove("asks", "stranger");
  });

  test("two networks: an interface each, and it is known by its address on each", async () => {
    await services.create("both", ["--network", "front", "--network", "back"]);
    const [row] = await services.settled("both", 1);
    const addresses = addressesOf(row ?? ({} as never));
    expect(addresses).toHaveLength(2);
    await services.create("on-front", ["--network", "front"], ...asksFor("both"));
    await services.create("on-back", ["--network", "back"], ...asksFor("both"));
    const front = await services.printed("on-front", /^at [0-9.]+ end$/m);
    const back = await services.printed("on-back", /^at [0-9.]+ end$/m);
    const last = (text: string) => text.split("\n").at(-1);
    expect([last(front), last(back)].sort()).toEqual(
      [...addresses].map((address) => `at ${address} end`).sort(),
    );
    await services.remove("both", "on-front", "on-back");
  });

  test("the name forgets a task that dies within a second, and no address is used twice", async () => {
    await services.create(
      "probe",
      ["--constraint", `node.hostname==${w2}`, "--network", "front"],
      ...asksFor("tasks.flock"),
    );
    await services.create(
      "flock",
      [
        "--replicas",
        "4",
        "--constraint",
        "node.role==worker",
        "--restart-delay",
        "4s",
        "--network",
        "front",
      ],
      "sh",
      "-c",
      "sleep 1d & wait",
    );
    const rows = await services.settled("flock", 4);
    const knows = async (count: number) =>
      await until(`the probe to see ${count} tasks`, async () => {
        const text = await services.docker("service", "logs", "--raw", "--tail", "1", "probe");
        const seen = text.trim().split(" ").slice(1, -1);
        return seen.length === count ? seen : null;
      });
    expect([...(await knows(4))].sort()).toEqual(rows.flatMap(addressesOf).sort());
    const hosts = await services.hosts();
    const victim = rows.find((row) => hosts.get(row.NodeID ?? "") === w1);
    await swarm.machine("ssh", w1, "kill", "-9", String(victim?.Status.ContainerStatus?.PID));
    const failed = await services.until("flock", "the failure", (now) => {
      return now.find((row) => row.ID === victim?.ID && row.Status.State === "failed") ?? null;
    });
    expect(failed.Status.Err).toBe("task: non-zero exit (137)");
    await knows(3);
    const lines = (await services.docker("service", "logs", "--raw", "-t", "probe")).split("\n");
    const gone = lines.find(
      (line) =>
        line.split(" ").length === 6 &&
        at(line.split(" ")[0] ?? "") >= at(failed.Status.Timestamp) - 50,
    );
    expect(at(gone?.split(" ")[0] ?? "") - at(failed.Status.Timestamp)).toBeLessThan(1_000);
    await services.settled("flock", 4);
    await knows(4);
    await services.remove("flock", "probe");
  });

  test("addresses under churn: at no time do two live tasks have the same", async () => {
    await services.docker(
      "network",
      "create",
      "-d",
      "overlay",
      "--subnet",
      "10.199.0.0/28",
      "small",
    );
    await services.create("churn", [
      "--replicas",
      "6",
      "--network",
      "small",
      "--restart-delay",
      "0s",
      "--update-parallelism",
      "3",
      "--update-monitor",
      "10ms",
    ]);
    await services.settled("churn", 6);
    const looks = services.watch("churn");
    for (const turn of ["1", "2", "3"]) {
      await services.update("churn", "--env-add", `TURN=${turn}`);
      await services.updated("churn", "completed");
    }
    await services.docker("service", "scale", "-d", "churn=2");
    await services.docker("service", "scale", "-d", "churn=8");
    await services.settled("churn", 8);
    for (const look of await looks()) {
      const used = look.filter(isRunning).flatMap(addressesOf);
      expect(new Set(used).size).toBe(used.length);
    }
    const refused = await swarm.dockerRun(m1, ["network", "rm", "small"]);
    expect([refused.code, refused.err]).toEqual([
      1,
      expect.stringMatching(/network \w{25} is in use by service \w{25}/),
    ]);
    await services.remove("churn");
    await services.containersGone("churn");
    await until("the network to be free", async () => {
      const { code } = await swarm.dockerRun(m1, ["network", "rm", "small"]);
      return code === 0 ? true : null;
    });
  });
});

test("a worker that leaves takes down its tasks and its networks", async () => {
  await services.create("here", ["--mode", "global", "--network", "front"]);
  await services.settled("here", 3);
  const sandboxes = async () =>
    (await swarm.machine("ssh", w2, "ls", "/run/shoal/netns").catch(() => ""))
      .split("\n")
      .filter((name) => name.startsWith("ov-"));
  expect(await sandboxes()).toHaveLength(1);
  expect(await swarm.docker(w2, "swarm", "leave")).toContain("Node left the swarm.");
  expect(await services.containers(w2)).toEqual([]);
  expect(await sandboxes()).toEqual([]);
  await services.placedOn("here", [m1, w1]);
});
