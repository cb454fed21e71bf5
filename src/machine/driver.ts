/** The contract of a machine driver; driver-suite.ts holds what every implementation must pass. */
import type { ChildProcess, StdioOptions } from "node:child_process";
import type { MachineRecord, MachineState } from "./record.ts";

/** What a driver can do; a command that needs more is refused by name. */
export interface DriverFeatures {
  /** start, stop and kill. */
  readonly power: boolean;
  /** Programs run in the machine without a network or an sshd. */
  readonly exec: boolean;
  /** Needs root on this box. */
  readonly root: boolean;
}

export interface SpawnOptions {
  /** As node:child_process has it; index 0 to 2. */
  readonly stdio: StdioOptions;
  /** Gives the program a terminal of its own, connected to the caller's. */
  readonly tty: boolean;
  /** Working directory in the machine; "/root" when absent. */
  readonly directory?: string;
}

/**
 * One kind of machine. Every method may be called again after it failed or was killed half way, and then does the rest:
 * the driver looks at what is there instead of trusting a record of what it did.
 */
export interface Driver {
  readonly name: string;
  readonly features: DriverFeatures;
  /** Throws `invalid` or `failed-precondition` when this box cannot have such a machine. Changes nothing. */
  preCreateCheck(machine: MachineRecord): Promise<void>;
  /** Makes what lasts while the machine is stopped. */
  create(machine: MachineRecord): Promise<void>;
  /** Starts the machine and, in it, shoald; resolves when its first process runs. Nothing when it runs already. */
  start(machine: MachineRecord): Promise<void>;
  /** Ends shoald in order, then everything in the machine. Nothing when it is stopped. */
  stop(machine: MachineRecord): Promise<void>;
  /** Power off without a word. Nothing when it is stopped. */
  kill(machine: MachineRecord): Promise<void>;
  /** Ends it and takes away all that it had but its record. Fine when part or all of it is gone. */
  remove(machine: MachineRecord): Promise<void>;
  /** Takes away what machines share; called when the last one has gone. */
  removeShared(): Promise<void>;
  state(machine: MachineRecord): Promise<MachineState>;
  /** The pid of shoald in a running machine, as this box numbers it; null when it does not run. */
  daemonPid(machine: MachineRecord): Promise<number | null>;
  /** Starts shoald again in a running machine, after it died for good. */
  startDaemon(machine: MachineRecord): Promise<void>;
  /** The machine's address on the machine network. */
  address(machine: MachineRecord): string;
  /** Where the machine's API answers, for a client on this box: unix://PATH or tcp://ADDRESS:PORT. */
  url(machine: MachineRecord): string;
  /** The last lines that the machine and its daemon wrote. */
  logTail(machine: MachineRecord): Promise<string>;
  /** Starts a program in the machine. The child's exit code is the program's. Throws `failed-precondition` when it is stopped. */
  spawn(machine: MachineRecord, argv: readonly string[], options: SpawnOptions): ChildProcess;
}
