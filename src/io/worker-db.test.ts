import { mkdtemp, open, readdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { aNetwork, aStatus } from "../model/testing/rows.ts";
import { anAssigned } from "../worker/testing/fakes.ts";
import type { AssignmentChange } from "../worker/worker-db.ts";
import { openWorkerDb } from "./worker-db.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp("/tmp/shoal-worker-");
});
afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

function change(over: Partial<AssignmentChange> = {}): AssignmentChange {
  return {
    revision: 1,
    putTasks: [],
    putNetworks: [],
    removeNetworks: [],
    putPeers: [],
    removePeers: [],
    ...over,
  };
}

test("what was kept is there again", async () => {
  let db = await openWorkerDb(directory);
  expect(await db.load()).toMatchObject({ revision: 0, tasks: [], dataPathPort: 4789 });
  await Promise.all([
    db.saveAssignment(
      change({
        revision: 3,
        putTasks: [anAssigned("a"), anAssigned("b")],
        putNetworks: [aNetwork("n")],
      }),
    ),
    db.saveStatus("a", aStatus({ state: "running" })),
    db.saveStatus("b", aStatus({ state: "failed", exitCode: 4 })),
    db.saveAssignment(change({ revision: 4, removeNetworks: ["n"] })),
    db.saveDataPathPort(5_000),
    db.forgetTask("a"),
  ]);
  await db.close();
  db = await openWorkerDb(directory);
  expect(await db.load()).toEqual({
    revision: 4,
    dataPathPort: 5_000,
    tasks: [anAssigned("b")],
    statuses: [{ taskId: "b", status: aStatus({ state: "failed", exitCode: 4 }) }],
    networks: [],
    peers: [],
  });
  await db.close();
});

test("a second process is refused", async () => {
  const db = await openWorkerDb(directory);
  await expect(openWorkerDb(directory)).rejects.toThrow("another shoald uses it");
  await db.close();
});

describe("damage is named and nothing starts from half", () => {
  beforeEach(async () => {
    const db = await openWorkerDb(directory);
    for (let at = 0; at < 40; at++) {
      await db.saveAssignment(change({ revision: at, putTasks: [anAssigned(`task${at}`)] }));
    }
    await db.close();
  });
  const files = async (pattern: RegExp) => {
    const names = (await readdir(join(directory, "db"))).filter((name) => pattern.test(name));
    const sized = await Promise.all(
      names.map(async (name) => {
        const path = join(directory, "db", name);
        return { path, size: (await stat(path)).size };
      }),
    );
    return sized.filter((item) => item.size > 0);
  };
  const refused = async () => {
    await expect(openWorkerDb(directory)).rejects.toThrow(
      new RegExp(`opening the worker's database ${directory}: it is damaged .*move it away`),
    );
  };

  test("a truncated file", async () => {
    for (const { path, size } of await files(/\.(log|ldb)$/)) await truncate(path, size >> 1);
    await refused();
  });

  test("a missing CURRENT", async () => {
    await rm(join(directory, "db", "CURRENT"));
    await refused();
  });

  test("all files gone", async () => {
    await rm(join(directory, "db"), { recursive: true });
    await refused();
  });

  test.each([0.2, 0.5, 0.8])("a flipped bit at %f of the data", async (part) => {
    for (const { path, size } of await files(/\.(log|ldb)$/)) {
      const handle = await open(path, "r+");
      const at = Math.floor(size * part);
      const byte = Buffer.alloc(1);
      await handle.read(byte, 0, 1, at);
      byte[0] = (byte[0] ?? 0) ^ 0x10;
      await handle.write(byte, 0, 1, at);
      await handle.close();
    }
    await refused();
  });

  test("but a kill between two writes is none", async () => {
    const path = join(directory, "sequence");
    const text = await readFile(path, "utf8");
    // The database is one write ahead of its mark.
    await writeFile(path, text.replace(/^\d{16}/, "0000000000000005").replace("clean", "open "));
    const db = await openWorkerDb(directory);
    expect((await db.load()).tasks).toHaveLength(40);
    await db.close();
  });
});
