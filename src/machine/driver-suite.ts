/** What every machine driver must pass. A test calls each check with a driver and a machine of its own; nothing here knows a test runner. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { Driver } from "./driver.ts";
import { exitCode } from "./process.ts";
import type { MachineRecord } from "./record.ts";

export interface DriverCheck {
  readonly name: string;
  /** `machine` has a record but nothing has been made yet; the check leaves nothing behind. */
  run(driver: Driver, machine: MachineRecord): Promise<void>;
}

export const driverChecks: readonly DriverCheck[] = [
  {
    name: "remove of a machine that was never made is fine",
    run: async (driver, machine) => {
      await driver.remove(machine);
      await driver.remove(machine);
      strictEqual(await driver.state(machine), "Stopped");
    },
  },
  {
    name: "create, start, stop, start, kill and remove are each fine twice",
    run: async (driver, machine) => {
      await driver.preCreateCheck(machine);
      const expected = [
        ["create", "Stopped"],
        ["start", "Running"],
        ["stop", "Stopped"],
        ["start", "Running"],
        ["kill", "Stopped"],
        ["remove", "Stopped"],
      ] as const;
      for (const [verb, state] of expected) {
        await driver[verb](machine);
        await driver[verb](machine);
        strictEqual(await driver.state(machine), state, `after ${verb}`);
      }
    },
  },
  {
    name: "a running machine can be removed",
    run: async (driver, machine) => {
      await driver.create(machine);
      await driver.start(machine);
      await driver.remove(machine);
      strictEqual(await driver.state(machine), "Stopped");
    },
  },
  {
    name: "a program's output, input, exit code and arguments come through",
    run: async (driver, machine) => {
      await driver.create(machine);
      await driver.start(machine);
      try {
        const said = await output(
          driver,
          machine,
          ["sh", "-c", 'cat; echo "$0|$1"; exit 7', "a b", "c'd"],
          "in\n",
        );
        deepStrictEqual(said, { code: 7, text: "in\na b|c'd\n" });
        const host = await output(driver, machine, ["hostname"], "");
        deepStrictEqual(host, { code: 0, text: `${machine.name}\n` });
      } finally {
        await driver.remove(machine);
      }
    },
  },
  {
    name: "a machine's address is its own, and the same after a power cut",
    run: async (driver, machine) => {
      await driver.create(machine);
      await driver.start(machine);
      try {
        const show = ["ip", "-4", "-o", "addr"];
        const before = await output(driver, machine, show, "");
        ok(before.text.includes(` ${driver.address(machine)}/`), before.text);
        await driver.kill(machine);
        await driver.start(machine);
        const later = await output(driver, machine, show, "");
        ok(later.text.includes(` ${driver.address(machine)}/`), later.text);
      } finally {
        await driver.remove(machine);
      }
    },
  },
  {
    name: "a stopped machine runs no program",
    run: async (driver, machine) => {
      await driver.create(machine);
      try {
        let refused: unknown = null;
        try {
          driver.spawn(machine, ["true"], { stdio: "ignore", tty: false });
        } catch (error) {
          refused = error;
        }
        strictEqual((refused as { code?: unknown } | null)?.code, "failed-precondition");
      } finally {
        await driver.remove(machine);
      }
    },
  },
];

async function output(
  driver: Driver,
  machine: MachineRecord,
  argv: readonly string[],
  input: string,
): Promise<{ readonly code: number; readonly text: string }> {
  const child = driver.spawn(machine, argv, { stdio: ["pipe", "pipe", "inherit"], tty: false });
  const pieces: Buffer[] = [];
  child.stdout?.on("data", (piece: Buffer) => pieces.push(piece));
  // A program that reads nothing may be gone before its input is written.
  child.stdin?.on("error", () => child.stdin?.destroy());
  child.stdin?.end(input);
  const code = await exitCode(child);
  return { code, text: Buffer.concat(pieces).toString("utf8") };
}
