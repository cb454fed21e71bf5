/** Goal: a five-node swarm goes on without a worker, then without its leader. How: power cuts of netns machines with services running. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { until } from "./lib/command.ts";
import { type Holdings, holdings, leaked } from "./lib/leaks.ts";
import { Swarm, webCommand } from "./lib/swarm.ts";

let swarm: Swarm;
let before: Holdings;

beforeAll(async () => {
  before = await holdings();
  swarm = await Swarm.create("fail", 3, 2);
  await swarm.loadBusybox();
}, 180_000);
afterAll(async () => {
  await swarm?.destroy();
  expect(leaked(before, await holdings(), swarm.marks)).toEqual([]);
}, 180_000);

const create = ["service", "create", "-d", "--no-resolve-image", "--restart-delay", "200ms"];

test("a worker's tasks move when it dies, and it is taken back", async () => {
  const [m1 = ""] = swarm.managers;
  const [w1 = ""] = swarm.workers;
  await swarm.docker(m1, "network", "create", "-d", "overlay", "front");
  await swarm.docker(
    m1,
    ...create,
    "--name",
    "web",
    "--network",
    "front",
    "--replicas",
    "8",
    "busybox",
    ...webCommand,
  );
  await swarm.converged(m1, "web", 8);
  await swarm.machine("kill", w1);
  const tasks = await swarm.converged(m1, "web", 8, { notOn: [w1] });
  const addresses = tasks.flatMap(
    (task) => task.NetworksAttachments?.flatMap((one) => one.Addresses) ?? [],
  );
  expect(new Set(addresses).size).toBe(8);
  await swarm.machine("start", w1);
  await until("the worker to be ready again", async () => {
    const nodes = await swarm.nodes(m1);
    return nodes.every((node) => node.Status.State === "ready") ? true : null;
  });
  // What it ran was replaced while it was away: none of it may still run there.
  await until("the worker to hold no task of web that is not its own", async () => {
    const all = await swarm.tasks(m1, "web");
    const wanted = all.filter((task) => task.DesiredState === "running");
    const ids = new Set(wanted.map((task) => task.Status.ContainerStatus?.ContainerID ?? ""));
    const containers = await swarm.api<{ Id: string; State: string }[]>(w1, "/containers/json");
    return containers.every((container) => ids.has(container.Id)) ? true : null;
  });
  expect((await swarm.running(m1, "web")).length).toBe(8);
});

test("the leader dies: another leads, writes go on, running tasks stay, and it comes back", async () => {
  const [m1 = ""] = swarm.managers;
  const leader = await until("a leader", () => swarm.leader(m1));
  const [witness = "", other = ""] = swarm.managers.filter((machine) => machine !== leader);
  const before = new Set((await swarm.running(witness, "web")).map((task) => task.ID));
  await swarm.machine("kill", leader);
  await swarm.docker(
    witness,
    ...create,
    "--name",
    "after",
    "--replicas",
    "2",
    "busybox",
    "sleep",
    "1d",
  );
  const next = await until("a new leader", () => swarm.leader(other));
  expect(next).not.toBe(leader);
  await swarm.converged(other, "after", 2, { notOn: [leader] });
  await swarm.converged(witness, "web", 8, { notOn: [leader] });
  const now = await swarm.running(witness, "web");
  const nodes = await swarm.nodes(witness);
  const dead = nodes.find((node) => node.Description.Hostname === leader)?.ID;
  // A task on a node that lived is the same one: nothing was restarted that did not have to be.
  const kept = now.filter((task) => before.has(task.ID) && task.NodeID !== dead).length;
  expect(kept).toBeGreaterThanOrEqual(6);
  await swarm.machine("start", leader);
  await until("all managers reachable", async () => {
    const managers = (await swarm.nodes(witness)).filter((node) => node.Spec.Role === "manager");
    return managers.length === 3 &&
      managers.every(
        (node) => node.ManagerStatus?.Reachability === "reachable" && node.Status.State === "ready",
      )
      ? true
      : null;
  });
});

test("promotion makes a manager that can lead, demotion takes it back", async () => {
  const [m1 = ""] = swarm.managers;
  const [w2 = ""] = swarm.workers.slice(1);
  await swarm.docker(m1, "node", "promote", w2);
  await until("the promoted node to answer as a manager", async () => {
    const { code, out } = await swarm.dockerRun(w2, [
      "node",
      "ls",
      "--format",
      "{{.Hostname}} {{.ManagerStatus}}",
    ]);
    return code === 0 && out.includes(`${w2} Reachable`) ? true : null;
  });
  await swarm.docker(m1, "node", "demote", w2);
  await until("the demoted node to be a worker", async () => {
    const { code, err } = await swarm.dockerRun(w2, ["node", "ls"]);
    return code === 1 && err.includes("This node is not a swarm manager") ? true : null;
  });
  await until("the demoted node to stay a ready worker", async () => {
    const node = (await swarm.nodes(m1)).find((one) => one.Description.Hostname === w2);
    return node?.Spec.Role === "worker" &&
      node.ManagerStatus === undefined &&
      node.Status.State === "ready"
      ? true
      : null;
  });
  expect((await swarm.running(m1, "web")).length).toBe(8);
});

test("a worker leaves: its tasks move, its row goes down and can be removed", async () => {
  const [m1 = ""] = swarm.managers;
  const [w1 = ""] = swarm.workers;
  expect(await swarm.docker(w1, "swarm", "leave")).toContain("Node left the swarm.");
  await swarm.converged(m1, "web", 8, { notOn: [w1] });
  await until("the row to be down", async () => {
    const node = (await swarm.nodes(m1)).find((one) => one.Description.Hostname === w1);
    return node?.Status.State === "down" ? true : null;
  });
  await swarm.docker(m1, "node", "rm", w1);
  expect((await swarm.nodes(m1)).some((node) => node.Description.Hostname === w1)).toBe(false);
  expect(await swarm.api<unknown[]>(w1, "/containers/json?all=true")).toEqual([]);
});
