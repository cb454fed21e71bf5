/**
 * Goal: a daemon whose files are damaged says which one and what to do, changes nothing, and lets run what runs.
 * How: one node with services; it is stopped, one file is cut or one of its bits is flipped, it is started, and the file is put back.
 */
import { chmod, copyFile, mkdir, readdir, readFile, rename, rm, stat, truncate, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { LoneNode } from "./lib/lone-node.ts";

let node: LoneNode;
let pids: readonly string[];

beforeAll(async () => {
  node = await LoneNode.create("dmg");
  await node.start();
  await node.init("--snapshot-interval", "20");
  await node.loadBusybox();
  await node.docker("network", "create", "-d", "overlay", "front");
  await node.docker("service", "create", "-d", "--no-resolve-image", "--network", "front", "--replicas", "3", "--name", "web", "busybox", "sleep", "7d");
  await node.converged("web", 3);
  // Enough writes for a snapshot, and for a log that goes on after it.
  for (let count = 0; count < 20; count += 1)
    await node.docker("node", "update", "--label-add", `count=${count}`, node.name);
  // The database's log becomes a table when it is opened again.
  await node.stop();
  await node.start();
  await node.converged("web", 3);
  await node.stop();
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
/** Flips one bit of the last byte of its written part, or `before` bytes before it. */
function flipBeforeEnd(before: number): Harm {
  return async (path) => {
    const bytes = await readFile(path);
    const at = lastWritten(bytes) - before;
    bytes[at] = (bytes[at] ?? 0) ^ 0x04;
    await writeFile(path, bytes);
  };
}
const cut: Harm = async (path) => {
  await truncate(path, Math.floor((await stat(path)).size / 2));
};
const empty: Harm = (path) => truncate(path, 0);
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

/** Sizes and names of all that is on the disk but locks and logs: what a refused start must not change. */
async function inventory(): Promise<string> {
  return await node.inside(
    "sh",
    "-c",
    `cd ${node.dataRoot} && find . -type f -not -name lock -not -path '*/db/LOG*' -not -path '*/worker/db/LOCK' | sort | xargs sha256sum`,
  );
}

/** A file to harm, how, and words that the daemon must say beside the file's name or its directory's. */
const cases: readonly (readonly [what: string, pattern: RegExp, harm: Harm, words: RegExp])[] = [
  ["raft log, a bit early", /raft-\w+\/segment-\d+$/, flip(0.0006), /damaged at byte .*join this manager .*again|restore/],
  ["raft log, a bit before the tail", /raft-\w+\/segment-\d+$/, flipBeforeEnd(3000), /damaged at byte/],
  ["raft log, header", /raft-\w+\/segment-\d+$/, flip(0), /the segment's header is broken/],
  ["raft log, gone", /raft-\w+\/segment-\d+$/, remove, /without any segment|is missing/],
  ["raft snapshot, a bit", /raft-\w+\/snapshot-[\d-]+$/, flip(), /checksum does not hold/],
  ["raft snapshot, cut", /raft-\w+\/snapshot-[\d-]+$/, cut, /checksum does not hold/],
  ["raft snapshot, gone", /raft-\w+\/snapshot-[\d-]+$/, remove, /cannot be read/],
  ["swarm state, a bit", /swarm\/state\.json$/, flip(), /damaged/],
  ["swarm state, a bit of an id", /swarm\/state\.json$/, flip(0.25), /damaged/],
  ["swarm state, cut", /swarm\/state\.json$/, cut, /damaged/],
  ["swarm state, empty", /swarm\/state\.json$/, empty, /damaged/],
  ["node certificate and key, a bit of the key", /swarm-node\.pem$/, flip(0.1), /join again/],
  ["node certificate and key, a bit of the certificate", /swarm-node\.pem$/, flip(0.7), /join again/],
  ["node certificate and key, cut", /swarm-node\.pem$/, cut, /join again/],
  ["node certificate and key, gone", /swarm-node\.pem$/, remove, /join again/],
  ["root certificate, a bit", /swarm-root-ca\.crt$/, flip(0.6), /join again/],
  ["root certificate, cut", /swarm-root-ca\.crt$/, cut, /join again/],
  ["root certificate, gone", /swarm-root-ca\.crt$/, remove, /join again/],
  ["worker database, CURRENT", /worker\/db\/CURRENT$/, flip(0.2), /move it away/],
  ["worker database, CURRENT empty", /worker\/db\/CURRENT$/, empty, /move it away/],
  ["worker database, CURRENT gone", /worker\/db\/CURRENT$/, remove, /move it away/],
  ["worker database, MANIFEST", /worker\/db\/MANIFEST-\d+$/, flip(), /move it away/],
  ["worker database, MANIFEST cut", /worker\/db\/MANIFEST-\d+$/, cut, /move it away/],
  ["worker database, table", /worker\/db\/\d+\.ldb$/, flip(), /move it away/],
  ["worker database, table cut", /worker\/db\/\d+\.ldb$/, cut, /move it away/],
  ["worker database, log", /worker\/db\/\d+\.log$/, flip(), /move it away/],
  ["worker database, log cut", /worker\/db\/\d+\.log$/, cut, /move it away/],
  ["image record, a bit", /images\/records\/\w+\.json$/, flip(), /damaged/],
  ["image record, cut", /images\/records\/\w+\.json$/, cut, /damaged/],
  ["image configuration, a bit", /images\/blobs\/.*[0-9a-f]{64}$/, flip(), /damaged/],
  ["image names, a bit", /images\/names\.json$/, flip(), /damaged/],
  ["container record, a bit", /containers\/[0-9a-f]{64}\/config\.json$/, flip(), /damaged/],
  ["container record, cut", /containers\/[0-9a-f]{64}\/config\.json$/, cut, /damaged/],
];

test("every damaged file is named, nothing is changed, and containers go on", async () => {
  const saved = join(node.folder, "saved");
  const wrong: string[] = [];
  for (const [what, pattern, harm, words] of cases) {
    const path = await find(pattern);
    await copyFile(path, saved);
    await harm(path);
    const before = await inventory();
    const up = await node.tryStart();
    if (up) {
      wrong.push(`${what}: the daemon started from it`);
      await node.stop();
    } else {
      const said = node.output.split("\n").find((line) => line.startsWith("shoald:")) ?? node.output;
      const directory = path.includes("/worker/db/") ? join(path, "../..") : path;
      if (node.exitCode === 0) wrong.push(`${what}: exit code 0`);
      if (!said.includes(directory)) wrong.push(`${what}: does not name ${directory}: ${said}`);
      if (!words.test(said)) wrong.push(`${what}: does not say ${words}: ${said}`);
      if (said.includes("    at ")) wrong.push(`${what}: a stack trace: ${said}`);
    }
    const after = await inventory();
    if (after !== before) wrong.push(`${what}: files changed:\n${difference(before, after)}`);
    const now = await node.processes("sleep 7d");
    if (now.join() !== pids.join()) wrong.push(`${what}: containers changed: ${now.join()}`);
    await copyFile(saved, path);
    if (basename(path) === "swarm-node.pem" || what.includes("gone")) await chmod(path, 0o600);
  }
  expect(wrong.join("\n")).toBe("");
  await node.start();
  await node.converged("web", 3);
  expect(await node.processes("sleep 7d")).toEqual(pids);
  await node.stop();
}, 150_000);

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
  await node.docker("service", "create", "-d", "--no-resolve-image", "--name", "later", "busybox", "sleep", "1d");
  await node.converged("later", 1);
  await node.stop();
});

test("a second daemon on the same data root refuses and says whose it is", async () => {
  await node.start();
  const { pid } = JSON.parse(await readFile(join(node.dataRoot, "lock"), "utf8")) as { pid: number };
  const second = await node.tryInside(
    join(import.meta.dirname, "../bin/shoald"),
    ...["--data-root", node.dataRoot, "--exec-root", join(node.folder, "exec2")],
    ...["-H", `unix://${node.folder}/second.sock`, "--cgroup-parent", node.cgroupParent],
  );
  expect(second.code).toBe(1);
  expect(second.err).toContain(`shoald: opening ${node.dataRoot}: process ${pid} is using it; stop that process`);
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
