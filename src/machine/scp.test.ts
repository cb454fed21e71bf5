/** Goal: what the sender wrote arrives whenever the receiver starts. Method: a receiver whose machine is found late. */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { Machines } from "./provision.ts";
import { scp } from "./scp.ts";

/** Longer than it takes to send a small file: by then the sender has ended, which is what this is about. */
const lateMs = 400;

test("a sender that has ended before the receiver starts has sent all the same", async () => {
  const folder = mkdtempSync(join(tmpdir(), "shoal-scp-"));
  try {
    const from = join(folder, "from");
    const to = join(folder, "to");
    writeFileSync(from, "hello\n");
    const machines = {
      store: {
        get: () =>
          new Promise((resolve) => {
            setTimeout(() => resolve({ driver: "here" }), lateMs);
          }),
      },
      driver: () => ({
        spawn: (_: unknown, [program = "", ...rest]: string[], options: object) =>
          spawn(program, rest, options),
      }),
    } as unknown as Machines;
    await scp(machines, { machine: null, path: from }, { machine: "late", path: to }, false);
    expect(readFileSync(to, "utf8")).toBe("hello\n");
  } finally {
    rmSync(folder, { recursive: true });
  }
});
