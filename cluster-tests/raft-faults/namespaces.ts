/** A machine of its own: mount, network, process and host-name namespaces that end with this process, however it ends. */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { must, type Outcome, run } from "../lib/command.ts";

export class Namespaces {
  readonly name: string;
  readonly #keeper: ChildProcess;
  readonly #initPid: number;

  private constructor(name: string, keeper: ChildProcess) {
    this.name = name;
    this.#keeper = keeper;
    this.#initPid = onlyChildOf(keeper.pid ?? 0);
  }

  static async create(name: string): Promise<Namespaces> {
    // Its first process reads this process's pipe and ends when that closes; the kernel then ends all others in it.
    const keeper = spawn(
      "unshare",
      [
        ...["--mount", "--net", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"],
        ...["--propagation", "private", "sh", "-c"],
        `hostname ${name}; ip link set lo up; echo up; exec cat`,
      ],
      { stdio: ["pipe", "pipe", "inherit"] },
    );
    await new Promise<void>((resolve, reject) => {
      keeper.stdout?.once("data", () => resolve());
      keeper.once("error", reject);
      keeper.once("exit", (code) => reject(new Error(`the keeper of ${name} ended: ${code}`)));
    });
    return new Namespaces(name, keeper);
  }

  /** Its first process, as this box numbers it. */
  get initPid(): number {
    return this.#initPid;
  }

  /** Argv of `command` run inside. */
  entered(...command: readonly string[]): string[] {
    return ["nsenter", "-t", String(this.#initPid), "-m", "-n", "-p", "-u", "--", ...command];
  }

  /** Runs a program inside, which must succeed; answers its trimmed output. */
  async inside(...command: readonly string[]): Promise<string> {
    const [program = "", ...rest] = this.entered(...command);
    return await must(program, rest);
  }

  async tryInside(...command: readonly string[]): Promise<Outcome> {
    const [program = "", ...rest] = this.entered(...command);
    return await run(program, rest);
  }

  /** Runs a program of this box inside the network namespace alone, which must succeed; answers its trimmed output. */
  async withNetwork(...command: readonly string[]): Promise<string> {
    return await must("nsenter", ["-t", String(this.#initPid), "-n", "--", ...command]);
  }

  /** A file inside, as a path of this box; while the machine lives. */
  outside(path: string): string {
    return `/proc/${this.#initPid}/root${path}`;
  }

  /** Ends everything inside. Fine when it has ended. */
  async close(): Promise<void> {
    if (this.#keeper.exitCode !== null || this.#keeper.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => this.#keeper.once("exit", () => resolve()));
    this.#keeper.stdin?.end();
    await ended;
  }
}

/** The one child of a process; 0 when it has none. */
export function onlyChildOf(pid: number): number {
  const [child = ""] = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ");
  return Number(child);
}
