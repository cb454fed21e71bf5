/** A container image as this node has it. */
import type { InstantMs } from "../lib/clock.ts";
import type { Labels } from "./stored.ts";

/** The part of an OCI image config that running needs (image-spec config.md). */
export interface ImageConfig {
  readonly env: readonly string[];
  readonly entrypoint: readonly string[];
  readonly command: readonly string[];
  readonly workingDir: string;
  readonly user: string;
  readonly labels: Labels;
  readonly stopSignal: string | null;
  readonly exposedPorts: readonly string[];
  readonly volumes: readonly string[];
}
export interface Image {
  /** sha256:… of the config blob. */
  readonly id: string;
  /** `name:tag`, familiar form (busybox:latest). */
  readonly tags: readonly string[];
  /** `name@sha256:…` of manifests it was known by. */
  readonly digests: readonly string[];
  readonly createdAt: InstantMs | null;
  readonly author: string;
  readonly comment: string;
  readonly os: string;
  readonly architecture: string;
  readonly variant: string;
  /** Unpacked bytes of all layers. */
  readonly sizeBytes: number;
  /** Digests of the uncompressed layer tars, lowest first. */
  readonly diffIds: readonly string[];
  readonly config: ImageConfig;
  readonly history: readonly {
    readonly createdAt: InstantMs | null;
    readonly createdBy: string;
    readonly comment: string;
    readonly emptyLayer: boolean;
  }[];
}
