/**
 * Goal: a daemon whose files are damaged says which one and what to do, changes nothing, and lets run what runs.
 * How: one node with services; it is stopped, one file is cut or one of its bits is flipped, it is started, and the file is put back.
 */
import {
  copyFile,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  truncate,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { must } from "./lib/command.ts";
import { LoneNode } from "./lib/lone-node.ts";

let node: LoneNode;
let pids: readonly string[];

beforeAll(async () => {
  node = await LoneNode.create("dmg");
  await node.start();
  await node.init("--snapshot-interval", "20");
  await node.loadBusybox();
  await node.docker("network", "create", "-d", "overlay", "front");
  await node.docker(
    "service",
    "create",
    "-d",
    "--no-resolve-image",
    "--network",
    "front",
    "--replicas",
    "3",
    "--name",
    "web",
    "busybox",
    "sleep",
    "7d",
  );
  await node.converged("web", 3);
  // Enough writes for a snapshot, and for a log that goes on after it.
  for (let count = 0; count < 12; count += 1)
    await node.docker("node", "update", "--label-add", `count=${count}`, node.name);
  await node.stop();
  // The worker's database has all in its log now; when it is opened again that becomes a table.
  await must("cp", ["-a", join(node.dataRoot, "swarm"), join(node.folder, "with-log")]);
  await node.start();
  await node.converged("web", 3);
  await node.stop();
  await must("cp", ["-a", join(node.dataRoot, "swarm"), join(node.folder, "with-table")]);
  pids = await node.processes("sleep 7d");
  expect(pids.length).toBe(3);
}, 60_000);
afterAll(async () => {
  await node?.destroy();
}, 60_000);

type Harm = (path: string) => Promise<void>;

/** Flips one bit at a share of the file's length. */
function flip(share = 0.5): Harm {
  return async (path) => {
    const bytes = await readFile(path);
    const at = Math.floor(bytes.length * share);
    bytes[at] = (bytes[at] ?? 0) ^ 0x04;
    await writeFile(path, bytes);
  };
}
/** Flips bits all over: parts of a database that are out of use may be damaged unnoticed. */
const flipAll: Harm = async (path) => {
  const bytes = await readFile(path);
  for (let at = 0; at < bytes.length; at += 50) bytes[at] = (bytes[at] ?? 0) ^ 0x04;
  await writeFile(path, bytes);
};
const cut: Harm = async (path) => {
  await truncate(path, Math.floor((await stat(path)).size / 2));
};
const remove: Harm = (path) => rm(path);

/** Raft segments are allocated ahead: their end is zeros. */
function lastWritten(bytes: Uint8Array): number {
  let at = bytes.length - 1;
  while (at > 0 && bytes[at] === 0) at -= 1;
  return at;
}

/** The one file below the data root whose path ends as the pattern says; the last of several. */
async function find(pattern: RegExp): Promise<string> {
  const all = await readdir(node.dataRoot, { recursive: true });
  const found = all.filter((path) => pattern.test(path)).sort();
  const path = found.at(-1);
  if (path === undefined) throw new Error(`no file like ${pattern} in ${all.join(" ")}`);
  return join(node.dataRoot, path);
}

/** All files but locks and spare room, with their sums: what a refused start must not change. Level writes its own anew when it opens. */
async function inventory(): Promise<string> {
  return await node.inside(
    "sh",
    "-c",
    `cd ${node.dataRoot} && find . -type f -not -name lock -not -path '*/worker/db/*' -not -name spare | sort | xargs sha256sum`,
  );
}

/** A file to harm, how, and what the daemon must say. It names the file, or the directory of a log or a database. */
type Case = readonly [what: string, pattern: RegExp, harm: Harm, words: RegExp];

const again = /Restore the file from a backup, or remove .* and join again/;
const away = /restore the directory from a backup, or move it away/;
const restore = /damaged.*(restore it from a backup|remove the image and load it again)/;
const swarmCases: readonly Case[] = [
  [
    "raft log, a bit",
    /raft-\w+\/segment-\d+$/,
    flip(0.0006),
    /is damaged at byte \d+: record .* is broken, though .*Nothing was changed\. Restore the directory from a backup .* and join again as a new node/,
  ],
  [
    "raft log, its header",
    /raft-\w+\/segment-\d+$/,
    flip(0),
    /damaged at byte 0: the segment's header is broken/,
  ],
  [
    "raft log, its directory emptied",
    /raft-\w+\/segment-\d+$/,
    async (path) => {
      await rm(join(path, ".."), { recursive: true });
      await mkdir(join(path, ".."));
    },
    /is empty, though this manager has run before.*Restore the directory/,
  ],
  ["raft log, gone", /raft-\w+\/segment-\d+$/, remove, /is a snapshot without any segment/],
  [
    "raft snapshot, a bit",
    /raft-\w+\/snapshot-[\d-]+$/,
    flip(),
    /the snapshot's checksum does not hold.*Restore the directory/,
  ],
  [
    "raft snapshot, cut",
    /raft-\w+\/snapshot-[\d-]+$/,
    cut,
    /the snapshot's checksum does not hold/,
  ],
  ["raft snapshot, gone", /raft-\w+\/snapshot-[\d-]+$/, remove, /cannot be read/],
  ["swarm state, a bit", /swarm\/state\.json$/, flip(0.3), restore],
  ["swarm state, cut", /swarm\/state\.json$/, cut, restore],
  ["node's key, a bit", /swarm-node\.pem$/, flip(0.15), again],
  ["node's certificate, a bit", /swarm-node\.pem$/, flip(0.7), again],
  ["node's certificate, cut", /swarm-node\.pem$/, cut, again],
  ["node's certificate, gone", /swarm-node\.pem$/, remove, again],
  ["root certificate, a bit", /swarm-root-ca\.crt$/, flip(0.6), again],
  ["root certificate, cut", /swarm-root-ca\.crt$/, cut, again],
  ["root certificate, gone", /swarm-root-ca\.crt$/, remove, again],
  ["worker database, CURRENT", /worker\/db\/CURRENT$/, flip(0.2), away],
  ["worker database, CURRENT gone", /worker\/db\/CURRENT$/, remove, away],
  ["worker database, MANIFEST", /worker\/db\/MANIFEST-\d+$/, flip(), away],
  ["worker database, MANIFEST cut", /worker\/db\/MANIFEST-\d+$/, cut, away],
  ["worker database, table", /worker\/db\/\d+\.ldb$/, flipAll, away],
  ["worker database, table cut", /worker\/db\/\d+\.ldb$/, cut, away],
  ["worker database, table gone", /worker\/db\/\d+\.ldb$/, remove, away],
];
const logCases: readonly Case[] = [
  ["worker database, log", /worker\/db\/\d+\.log$/, flip(), away],
  ["worker database, log cut", /worker\/db\/\d+\.log$/, cut, away],
];
const engineCases: readonly Case[] = [
  ["image record, a bit", /images\/records\/\w+\.json$/, flip(), restore],
  ["image configuration, a bit", /images\/blobs\/.*[0-9a-f]{64}$/, flip(), restore],
  ["image names, a bit", /images\/names\.json$/, flip(), restore],
  ["container record, a bit", /containers\/[0-9a-f]{64}\/config\.json$/, flip(), restore],
  ["container record, cut", /containers\/[0-9a-f]{64}\/config\.json$/, cut, restore],
];

/** Harms one file, starts, and tells what was not as it must be. */
async function refused([what, pattern, harm, words]: Case): Promise<readonly string[]> {
  const wrong: string[] = [];
  const path = await find(pattern);
  await harm(path);
  const before = await inventory();
  if (await node.tryStart()) {
    await node.stop();
    return [`${what}: the daemon started from it`];
  }
  const said = node.output.split("\n").find((line) => line.startsWith("shoald:")) ?? node.output;
  const named = /worker\/db|raft-/.test(path) ? path.replace(/(worker|raft-\w+)\/.*/, "$1") : path;
  if (node.exitCode === 0) wrong.push("exit code 0");
  if (!said.includes(named)) wrong.push(`does not name ${named}: ${said}`);
  if (!words.test(said)) wrong.push(`does not say ${words}: ${said}`);
  if (/^ {4}at /m.test(node.output)) wrong.push(`a stack trace: ${node.output}`);
  const after = await inventory();
  if (after !== before) wrong.push(`files changed:\n${difference(before, after)}`);
  const now = await node.processes("sleep 7d");
  if (now.join() !== pids.join()) wrong.push(`containers changed: ${now.join()}`);
  return wrong.map((text) => `${what}: ${text}`);
}

async function restoreSwarm(from: "with-log" | "with-table"): Promise<void> {
  await rm(join(node.dataRoot, "swarm"), { recursive: true });
  await must("cp", ["-a", join(node.folder, from), join(node.dataRoot, "swarm")]);
}

test("damaged logs, snapshots, state, certificates and databases are named, and containers go on", async () => {
  const wrong: string[] = [];
  for (const one of swarmCases) {
    wrong.push(...(await refused(one)));
    await restoreSwarm("with-table");
  }
  for (const one of logCases) {
    await restoreSwarm("with-log");
    wrong.push(...(await refused(one)));
    // Level has thrown the broken part away by now; what is left must not pass for the whole.
    wrong.push(...(await refused([`${one[0]}, once more`, one[1], async () => {}, one[3]])));
  }
  await restoreSwarm("with-table");
  expect(wrong.join("\n")).toBe("");
});

test("damaged records of images and containers are named, and containers go on", async () => {
  const wrong: string[] = [];
  const saved = join(node.folder, "saved");
  for (const one of engineCases) {
    const path = await find(one[1]);
    await copyFile(path, saved);
    wrong.push(...(await refused(one)));
    await copyFile(saved, path);
  }
  expect(wrong.join("\n")).toBe("");
  await node.start();
  await node.converged("web", 3);
  expect(await node.processes("sleep 7d")).toEqual(pids);
  await node.stop();
});

function difference(before: string, after: string): string {
  const [old, now] = [new Set(before.split("\n")), new Set(after.split("\n"))];
  return [
    ...[...old].filter((line) => !now.has(line)).map((line) => `- ${line}`),
    ...[...now].filter((line) => !old.has(line)).map((line) => `+ ${line}`),
  ].join("\n");
}

test("a torn tail of the raft log is cut with a warning, and the manager goes on", async () => {
  const path = await find(/raft-\w+\/segment-\d+$/);
  const bytes = await readFile(path);
  const end = lastWritten(bytes);
  // The last save is half there, as a power loss leaves it.
  bytes.fill(0, end - 40, end + 1);
  await writeFile(path, bytes);
  await node.start();
  expect(node.output).toMatch(/raft log: cut a torn last save, which was never acknowledged/);
  expect(node.output).toContain(path);
  await node.converged("web", 3);
  await node.docker(
    "service",
    "create",
    "-d",
    "--no-resolve-image",
    "--name",
    "later",
    "busybox",
    "sleep",
    "1d",
  );
  await node.converged("later", 1);
  await node.stop();
});

test("a second daemon on the same data root refuses and says whose it is", async () => {
  await node.start();
  const { pid } = JSON.parse(await readFile(join(node.dataRoot, "lock"), "utf8")) as {
    pid: number;
  };
  const second = await node.tryInside(
    join(import.meta.dirname, "../bin/shoald"),
    ...["--data-root", node.dataRoot, "--exec-root", join(node.folder, "exec2")],
    ...["-H", `unix://${node.folder}/second.sock`, "--cgroup-parent", node.cgroupParent],
  );
  expect(second.code).toBe(1);
  expect(second.err).toContain(
    `shoald: opening ${node.dataRoot}: process ${pid} is using it; stop that process`,
  );
  expect(await readdir(node.folder)).not.toContain("second.sock");
  await node.converged("web", 3);
  await node.stop();
});

test("a worker's database that was moved away comes back from the managers, with the containers that run", async () => {
  const database = join(node.dataRoot, "swarm", "worker");
  await rename(database, join(node.folder, "away"));
  await mkdir(database);
  await node.start();
  await node.converged("web", 3);
  expect(await node.processes("sleep 7d")).toEqual(pids);
  const containers = await node.get<unknown[]>("/containers/json");
  expect(containers.length).toBe(4);
  await node.stop();
});
