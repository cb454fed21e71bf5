/** What the engine keeps of each container beside the core's own state, and the host's facts that it needs; io/ implements both. */
import type { Container } from "../model/container.ts";
import type { ResolvConf } from "./etc-files.ts";

export interface ContainerRecords {
  /** Every record; what was being made or removed when the process died is cleaned up. Throws naming a damaged file. */
  load(): Promise<readonly Container[]>;
  /** Durable: on disk, synced, before it resolves; otherwise it survives this process but not the machine. */
  save(container: Container, durable: boolean): Promise<void>;
  /** Small files of a container; answers the path of each. */
  writeFiles<N extends string>(
    containerId: string,
    files: Readonly<Record<N, string>>,
  ): Promise<Readonly<Record<N, string>>>;
  /** The directory of a container: its log, and the core's `upper` and `work`. */
  directoryOf(containerId: string): string;
  /** Bytes that are free on the disk of the records. */
  freeBytes(): Promise<number>;
  /** The record and all files of the container. */
  remove(containerId: string): Promise<void>;
}

export interface HostFacts {
  /** What /etc/resolv.conf says. */
  resolvConf(): Promise<ResolvConf>;
  exists(path: string): Promise<boolean>;
  /** Output of `ps` with these arguments. Throws invalid when ps refuses them. */
  ps(args: readonly string[]): Promise<string>;
}
