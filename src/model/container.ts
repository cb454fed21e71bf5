/** A container of this node, as `docker ps` and `docker inspect` tell it. */
import type { InstantMs } from "../lib/clock.ts";
import type { Limits } from "./resources.ts";
import type { Labels } from "./stored.ts";
import type { Mount } from "./task.ts";

export interface Container {
  /** 64 hex digits. */
  readonly id: string;
  /** Without the leading slash. */
  readonly name: string;
  readonly imageRef: string;
  readonly imageId: string;
  readonly labels: Labels;
  readonly createdAt: InstantMs;
  readonly entrypoint: readonly string[];
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly workingDir: string;
  readonly user: string;
  readonly hostname: string;
  readonly stopSignal: string;
  readonly stopTimeoutSeconds: number;
  readonly mounts: readonly Mount[];
  readonly limits: Limits;
  readonly readOnly: boolean;
  readonly capabilityAdd: readonly string[];
  readonly capabilityDrop: readonly string[];
  readonly state: "created" | "running" | "exited" | "dead";
  readonly pid: number;
  readonly startedAt: InstantMs | null;
  readonly finishedAt: InstantMs | null;
  readonly exitCode: number;
  readonly oomKilled: boolean;
  /** Why it could not start; empty otherwise. */
  readonly error: string;
  readonly logPath: string;
  readonly networks: readonly {
    readonly networkId: string;
    readonly networkName: string;
    readonly address: string;
    readonly prefixLength: number;
    readonly gateway: string;
    readonly mac: string;
    readonly aliases: readonly string[];
  }[];
}
