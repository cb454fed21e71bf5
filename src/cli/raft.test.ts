/** Goal: `shoal raft` on a real directory: its words, its exit codes, and that it keeps away from a log in use. */
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";

vi.setConfig({ testTimeout: 20_000 });

import { lockLog, makeLog } from "../node/testing/raft-fixture.ts";
import { runWords } from "./testing/fixture-engine.ts";

/** The data root of a manager whose log holds five entries. */
let root = "";
let directory = "";
let segment = "";

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "shoal-raft-cli-"));
  directory = join(root, "swarm", "raft-abc");
  segment = await makeLog(root, "abc", 5);
});
afterEach(() => rm(root, { recursive: true, force: true }));

const raft = (...words: string[]): ReturnType<typeof runWords> => runWords(["raft", ...words], {});

test("check of a whole log: what is in it, exit code 0; by data root, by directory and as JSON", async () => {
  const ran = await raft("check", root);
  expect(ran.err).toBe("");
  expect(ran.code).toBe(0);
  expect(ran.out).toMatch(/Directory: +\S+\/swarm\/raft-abc\n/);
  expect(ran.out).toContain("term 1, vote abc, commit 5");
  expect(ran.out).toMatch(/segment-0000000000000001 +\S+ +1-5 +1-5 +1 +[0-9a-f]{16}\n/);
  expect(ran.out).toContain("No problems found.");
  expect((await raft("check", directory)).out).toBe(ran.out);
  const json = JSON.parse((await raft("check", "--format", "json", directory)).out);
  expect(json).toMatchObject({ problems: [], state: { indexes: { first: 1, last: 5 } } });
});

test("a torn tail: check exits 1, repair says what it would lose, and does it only with --yes", async () => {
  const bytes = await readFile(segment);
  const used = bytes.subarray(0, 4096).findLastIndex((byte) => byte !== 0);
  bytes[used] = (bytes[used] ?? 0) ^ 1;
  await writeFile(segment, bytes);
  const checked = await raft("check", root);
  expect(checked.code).toBe(1);
  expect(checked.out).toMatch(
    /1 problem:\n.*segment-0{15}1, byte \d+: \d+ bytes are no whole record/,
  );
  const asked = await raft("repair", root);
  expect(asked.code).toBe(1);
  expect(asked.out).toMatch(/loses: record 5: entries from 5 on, never acknowledged/);
  expect(asked.out).toContain("Nothing was changed. To do it, run this again with --yes.");
  expect((await readFile(segment)).equals(bytes)).toBe(true);
  const done = await raft("repair", "--yes", root);
  expect(done.code).toBe(0);
  expect(done.out).toContain("Repaired.");
  expect((await readdir(directory)).some((name) => name.startsWith("cut-segment"))).toBe(true);
  expect((await raft("check", root)).code).toBe(0);
  expect((await raft("repair", root)).out).toContain("nothing to repair");
});

test("damage before the tail: both name file, byte and the two ways out, and change nothing", async () => {
  const bytes = await readFile(segment);
  bytes[130] = (bytes[130] ?? 0) ^ 1;
  await writeFile(segment, bytes);
  const checked = await raft("check", root);
  expect(checked.code).toBe(1);
  expect(checked.out).toContain("a manager would not start from this");
  const repaired = await raft("repair", "--yes", root);
  expect(repaired.code).toBe(1);
  expect(repaired.err).toMatch(
    /segment-0{15}1, byte 64: .*is not repaired.*join again as a new node/s,
  );
  expect((await readFile(segment)).equals(bytes)).toBe(true);
});

test("a log in use, or none, is exit code 2 with the reason", async () => {
  const unlock = await lockLog(directory);
  for (const verb of ["check", "repair"]) {
    const ran = await raft(verb, root);
    expect(ran.code).toBe(2);
    expect(ran.err).toContain(`process ${process.pid} is using it; stop that process first`);
  }
  await unlock();
  const none = await raft("check", join(root, "nothing"));
  expect([none.code, none.err.includes("no such file or directory")]).toEqual([2, true]);
  expect((await raft("check", join(root, "swarm", "certificates"))).code).toBe(2);
});

test("the key file of another node is told, and told apart from damage", async () => {
  const other = await mkdtemp(join(tmpdir(), "shoal-raft-cli-"));
  try {
    await makeLog(other, "def", 1);
    const key = join(other, "swarm", "certificates", "swarm-node.pem");
    const ran = await raft("check", "--key-file", key, root);
    expect(ran.code).toBe(1);
    expect(ran.out).toMatch(/is encrypted with data key [0-9a-f]{16}, and \S+ holds data key/);
    expect((await raft("repair", "--key-file", key, "--yes", root)).code).toBe(1);
  } finally {
    await rm(other, { recursive: true });
  }
});
