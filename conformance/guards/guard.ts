/** What a guard of the native core is: a change of the source that takes it away, and the test that must then fail. */
import type { Change } from "../../sim/teeth/change.ts";

/** A test by the command line that runs it alone: `cargo test -p CRATE --test TARGET NAME`. */
export interface GuardTest {
  readonly crate: "shoal-core" | "shoal-runtime" | "shoal-oci" | "shoal-layers" | "shoal-seccomp";
  /** A file of the crate's tests/, or where its unit tests are. */
  readonly target: string | "--lib" | "--bin";
  /** Its whole name, with its modules. */
  readonly name: string;
}

/** A change of one file below `native/crates`. */
export interface Removal extends Change {
  readonly file: string;
}

/** One guard of the security list. */
export interface Guard {
  readonly name: string;
  /** The row of the list (native.md B5) that it belongs to. */
  readonly item: Item;
  /** What is possible without it, as one sentence without its full stop. */
  readonly what: string;
  /** Several where one guard stands behind another, so that only without both anything is possible. */
  readonly removals: readonly Removal[];
  /** Why there are several. */
  readonly because?: string;
  readonly test: GuardTest;
}

/** The rows of native.md B5; "others" is taken apart. */
export const items = [
  "capabilities",
  "seccomp",
  "no_new_privs",
  "CVE-2019-5736 /proc/self/exe",
  "CVE-2024-21626 descriptors",
  "CVE-2025-31133 masked paths",
  "CVE-2025-52565 /dev/console",
  "CVE-2025-52881 writes to /proc",
  "CVE-2026-41579 /dev symlink",
  "CVE-2026-30892 exec -u",
  "bind targets",
  "layers",
  "container id",
  "the root",
  "devices",
  "keyring",
  "limits",
  "sysctl",
  "labels",
  "streams",
  "pool",
] as const;
export type Item = (typeof items)[number];

/** Tests of one file of tests/. */
export function testsOf(
  crate: GuardTest["crate"],
  target: GuardTest["target"],
): (name: string) => GuardTest {
  return (name) => ({ crate, target, name });
}
