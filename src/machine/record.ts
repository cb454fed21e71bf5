/** What is kept on disk about one machine: `machines/NAME/machine.json`. */
import { failure } from "../lib/errors.ts";
import { machineNameLengthMax } from "./limits.ts";

/** Of the file format; a file with another version is refused, never guessed at. */
export const recordVersion = 1;

/** Steps of create in their order; each is saved when it is done, so that create can go on where it stopped. */
export const createSteps = ["check", "resources", "start", "ready", "swarm"] as const;
export type CreateStep = (typeof createSteps)[number];

/** What a machine does about a swarm when it is created. */
export type SwarmPlan =
  | { readonly kind: "init" }
  | { readonly kind: "join"; readonly token: string; readonly remote: string };

export interface MachineRecord {
  readonly version: typeof recordVersion;
  readonly name: string;
  readonly driver: string;
  /** RFC 3339. */
  readonly createdAt: string;
  /** The step of create that is to be done next; null when create is done. */
  readonly step: CreateStep | null;
  /** Why `step` failed; null when it did not. */
  readonly error: string | null;
  /** Smallest free number among the machines of one storage path; names of its interfaces come from it. */
  readonly index: number;
  /** Dotted IPv4, fixed for the machine's life. */
  readonly address: string;
  readonly prefixLength: number;
  readonly gateway: string;
  /** Name of the cluster that `cluster create` made it for; null when made alone. */
  readonly cluster: string | null;
  readonly role: "manager" | "worker" | null;
  /** Null when nothing is (or remains) to be done about a swarm. */
  readonly swarm: SwarmPlan | null;
  /** More arguments for shoald. */
  readonly daemonArguments: readonly string[];
  /** `NAME=VALUE` for shoald. */
  readonly daemonEnvironment: readonly string[];
}

/** What a machine is doing, in docker-machine's words (libmachine/state). */
export type MachineState = "Running" | "Stopped" | "Error" | "Timeout";

/** Throws `invalid` unless `name` can be a machine: docker-machine's characters, and short enough for a host name. */
export function checkMachineName(name: string): void {
  if (!/^[a-zA-Z0-9][a-zA-Z0-9\-.]*$/.test(name)) {
    throw failure(
      "invalid",
      `invalid machine name ${JSON.stringify(name)}: names are letters, digits, "-" and ".", and start with a letter or digit`,
    );
  }
  if (name.length > machineNameLengthMax) {
    throw failure(
      "invalid",
      `invalid machine name ${JSON.stringify(name)}: ${name.length} characters, at most ${machineNameLengthMax} fit a host name`,
    );
  }
}

/** Reads a record from the text of `file`. Throws `internal` with the file's name when it is not one. */
export function parseRecord(text: string, file: string): MachineRecord {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw broken(file, "it is not JSON", error);
  }
  if (typeof value !== "object" || value === null) throw broken(file, "it is not an object");
  const record = value as Partial<Record<keyof MachineRecord, unknown>>;
  if (record.version !== recordVersion) {
    throw broken(
      file,
      `its version is ${String(record.version)}, this program reads ${recordVersion}`,
    );
  }
  for (const key of ["name", "driver", "createdAt", "address", "gateway"] as const) {
    if (typeof record[key] !== "string") throw broken(file, `field ${key} is not a string`);
  }
  for (const key of ["index", "prefixLength"] as const) {
    if (!Number.isSafeInteger(record[key])) throw broken(file, `field ${key} is not a number`);
  }
  const step = record.step;
  if (step !== null && !createSteps.some((known) => known === step)) {
    throw broken(file, `step ${JSON.stringify(step)} is not known`);
  }
  for (const key of ["daemonArguments", "daemonEnvironment"] as const) {
    const list = record[key];
    if (!Array.isArray(list) || list.some((entry) => typeof entry !== "string")) {
      throw broken(file, `field ${key} is not a list of strings`);
    }
  }
  return value as MachineRecord;
}

function broken(file: string, why: string, cause?: unknown): Error {
  return failure(
    "internal",
    `reading ${file}: ${why}; repair it, or remove the machine with "shoal machine rm -f"`,
    cause,
  );
}
