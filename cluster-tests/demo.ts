/** The main job, told as a story with times: five machines become a swarm, services spread, a worker and the leader die. */
import { must, until } from "./lib/command.ts";
import { holdings, leaked } from "./lib/leaks.ts";
import { Swarm, webCommand } from "./lib/swarm.ts";

const keep = process.argv.includes("--keep");
const started = Date.now();
let stepStarted = started;

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}
/** Ends a step of the story: what happened, and how long it took. */
function step(text: string): void {
  const now = Date.now();
  print(
    `${((now - started) / 1000).toFixed(1).padStart(6)} s  +${((now - stepStarted) / 1000).toFixed(2)} s  ${text}`,
  );
  stepStarted = now;
}

async function story(swarm: Swarm): Promise<void> {
  const [m1 = ""] = swarm.managers;
  const [w1 = ""] = swarm.workers;
  step(
    `${swarm.managers.length} managers and ${swarm.workers.length} workers are machines of their own, and one swarm`,
  );
  print(await swarm.docker(m1, "node", "ls"));
  await swarm.loadBusybox();
  step("the busybox image is on every node");

  await swarm.docker(m1, "network", "create", "-d", "overlay", "front");
  await swarm.docker(
    m1,
    "service",
    "create",
    "-d",
    "--no-resolve-image",
    "--name",
    "web",
    "--network",
    "front",
    "--replicas",
    "6",
    "busybox",
    ...webCommand,
  );
  await swarm.docker(
    m1,
    "service",
    "create",
    "-d",
    "--no-resolve-image",
    "--name",
    "agent",
    "--mode",
    "global",
    "--network",
    "front",
    "busybox",
    "sleep",
    "1d",
  );
  await swarm.converged(m1, "web", 6);
  await swarm.converged(m1, "agent", 5);
  step("service web runs 6 replicas, service agent one task on each of the 5 nodes");
  print(await swarm.docker(m1, "service", "ps", "web"));

  await reach(swarm, m1, w1, 6);
  step("a task on a worker resolves web, and all 6 replicas answer it over the overlay network");

  await swarm.docker(m1, "service", "scale", "-d", "web=12");
  await swarm.converged(m1, "web", 12);
  step("web scaled from 6 to 12");

  const [, w2 = ""] = swarm.workers;
  await swarm.machine("kill", w2);
  step(`power cut: worker ${w2}`);
  await swarm.converged(m1, "web", 12, { notOn: [w2] });
  step("all 12 replicas run on the nodes that are left");

  const leader = await until("a leader", () => swarm.leader(m1));
  const others = swarm.managers.filter((machine) => machine !== leader);
  const [witness = ""] = others;
  await swarm.machine("kill", leader);
  step(`power cut: leader ${leader}`);
  const next = await until("a new leader", async () => {
    const found = await swarm.leader(witness);
    return found === leader ? null : found;
  });
  step(`${next} leads`);
  await swarm.docker(
    witness,
    "service",
    "update",
    "-d",
    "--no-resolve-image",
    "--update-parallelism",
    "0",
    "--env-add",
    "GREETING=hello",
    "web",
  );
  step("service update accepted by the managers that are left");
  await until("the update to complete", async () => {
    const service = await swarm.api<{ UpdateStatus?: { State: string } }>(witness, "/services/web");
    return service.UpdateStatus?.State === "completed" ? true : null;
  });
  await swarm.converged(witness, "web", 12, { notOn: [w2, leader] });
  step("update completed: 12 new tasks run");

  await swarm.machine("start", w2);
  await swarm.machine("start", leader);
  await until("all five nodes ready", async () => {
    const nodes = await swarm.nodes(witness);
    return nodes.length === 5 && nodes.every((node) => node.Status.State === "ready") ? true : null;
  });
  await swarm.converged(witness, "agent", 5);
  step("the dead machines are started again and back in the cluster");
  print(await swarm.docker(witness, "node", "ls"));
}

/** From a task on `worker`: the name resolves to all replicas, and each answers. */
async function reach(
  swarm: Swarm,
  manager: string,
  worker: string,
  replicas: number,
): Promise<void> {
  const script = `for try in 1 2 3 4 5 6 7 8 9 10; do
  addresses=$(nslookup web 2>/dev/null | awk '/^Address/ && !/:53/ {print $NF}' | sort -u)
  [ $(echo "$addresses" | wc -w) -eq ${replicas} ] && break; sleep 0.2; done
for address in $addresses; do echo "ANSWER $(timeout 3 wget -q -O - http://$address/)"; done; echo DONE`;
  await swarm.docker(
    manager,
    "service",
    "create",
    "-d",
    "--no-resolve-image",
    "--name",
    "probe",
    "--network",
    "front",
    "--restart-condition",
    "none",
    "--constraint",
    `node.hostname==${worker}`,
    "busybox",
    "sh",
    "-c",
    script,
  );
  const log = await until("the probe's answers", async () => {
    const text = await swarm.docker(manager, "service", "logs", "--raw", "probe");
    return text.includes("DONE") ? text : null;
  });
  const answers = new Set(
    log.split("\n").filter((line) => line.startsWith("ANSWER ") && line.length > 7),
  );
  if (answers.size !== replicas)
    throw new Error(`${answers.size} of ${replicas} replicas answered:\n${log}`);
  await swarm.docker(manager, "service", "rm", "probe");
}

async function main(): Promise<void> {
  const before = await holdings();
  print("Shoal: five machines on this box, each with its own network, processes and state");
  const swarm = await Swarm.create("demo", 3, 2);
  let failed: unknown = null;
  try {
    await story(swarm);
  } catch (error) {
    failed = error;
    print(`FAILED: ${String(error)}`);
    for (const machine of swarm.machines) {
      print(`--- ${machine}`);
      print(
        await must("sh", [
          "-c",
          `tail -n 15 ${swarm.storage}/machines/${machine}/*.log 2>/dev/null || true`,
        ]),
      );
    }
  }
  if (keep) {
    print(`kept: export DOCKER_HOST=unix://${swarm.socket(swarm.managers[0] ?? "")}`);
    print(
      `remove it with: MACHINE_STORAGE_PATH=${swarm.storage} bin/shoal machine rm -f ${swarm.machines.join(" ")} && rm -r ${swarm.storage}`,
    );
  } else {
    await swarm.destroy();
    const left = leaked(before, await holdings());
    if (left.length > 0) {
      print(`LEFT BEHIND:\n${left.join("\n")}`);
      process.exitCode = 1;
    } else step("removed: no namespace, mount, link, cgroup or process is left");
  }
  if (failed !== null) process.exitCode = 1;
  else if (!process.exitCode) print(`done in ${((Date.now() - started) / 1000).toFixed(1)} s`);
}

await main();
