/** Builds one test of the copy and runs it where it can spoil nothing of the machine. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import type { GuardTest } from "./guard.ts";

/** What a test said of one copy. */
export type Verdict =
  | { readonly kind: "passed" }
  | { readonly kind: "failed"; readonly said: string }
  /** It is not Rust: the bank is wrong. */
  | { readonly kind: "does not compile"; readonly said: string }
  /** It did not come to an end, ran nothing, or could not be run on this machine. */
  | { readonly kind: "broken"; readonly said: string };

/** Longest that a build may take: the first builds everything. */
const BUILD_LIMIT_MS = 20 * 60_000;
/** Longest that one test may take. */
const TEST_LIMIT_MS = 120_000;

/**
 * Tests run without guards, as root. So they see a machine whose disks are read-only but for the copy, with a /tmp and a /run of their
 * own, in mount and pid namespaces that end with them: what they break or leave is gone. Mounts are shared as on a usual host; those of
 * others, which would only be hidden, are not there. Pids begin high and at random, as tests name control groups by their own.
 */
const SANDBOX = `
set -e
copy=$1 pid=$2
shift 2
echo "$pid" >/proc/sys/kernel/ns_last_pid
awk '$5 ~ "^/(tmp|var/tmp|run)/" { print $5 }' /proc/self/mountinfo | tac | while read -r left; do umount -l "$left" 2>/dev/null || :; done
for place in /tmp /var/tmp /run; do mount -t tmpfs -o mode=1777 tmpfs "$place"; done
mount --bind "$copy" "$copy"
mount -o remount,bind,ro /
mount --make-rshared /
"$@"
`;
/** Where the pids of a test begin: below the least pid_max that a kernel is built with. */
const PID_MIN = 10_000;
const PID_SPAN = 20_000;

/** Builds `test` in the copy `folder` and runs it. */
export async function run(folder: string, test: GuardTest): Promise<Verdict> {
  const built = await build(folder, test);
  if (typeof built !== "string") return built;
  const exact = test.target === "containers" ? [] : ["--exact", "--nocapture", "--test-threads=1"];
  const pid = String(PID_MIN + Math.floor(Math.random() * PID_SPAN));
  const isolation = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
  const ended = await ending(
    "unshare",
    [...isolation, "sh", "-c", SANDBOX, "sh", folder, pid, built, test.name, ...exact],
    {
      cwd: join(folder, "native/crates", directoryOf(test.crate)),
      limitMs: TEST_LIMIT_MS,
      env: { RUST_BACKTRACE: "0" },
    },
  );
  const text = `${ended.out}\n${ended.errors}`;
  if (ended.late) return { kind: "broken", said: `it had not ended after ${TEST_LIMIT_MS} ms` };
  const skipped = /^.*skipped:.*$/im.exec(text);
  if (skipped !== null) return { kind: "broken", said: skipped[0] };
  const result = /^test result: \S+ (\d+) passed; (\d+) failed/m.exec(ended.out);
  if (ended.code === 0 && result?.[1] === "1") return { kind: "passed" };
  if (ended.code === 0) return { kind: "broken", said: `not one test is named ${test.name}` };
  return { kind: "failed", said: why(text) };
}

function directoryOf(crate: GuardTest["crate"]): string {
  return crate.replace(/^shoal-/, "");
}

/** The executable of the test. */
async function build(folder: string, test: GuardTest): Promise<string | Verdict> {
  const native = join(folder, "native");
  const target =
    test.target === "--lib"
      ? ["--lib"]
      : test.target === "--bin"
        ? ["--bin", test.crate]
        : ["--test", test.target];
  const format = "--message-format=json-render-diagnostics";
  const args = ["test", "--offline", "--locked", "--no-run", format, "-p", test.crate, ...target];
  const ended = await ending("cargo", args, {
    cwd: native,
    limitMs: BUILD_LIMIT_MS,
    env: {
      CARGO_TARGET_DIR: join(folder, "target"),
      CARGO_INCREMENTAL: "1",
      CARGO_PROFILE_DEV_DEBUG: "0",
    },
  });
  if (ended.late) return { kind: "broken", said: "the build had not ended" };
  if (ended.code !== 0) return { kind: "does not compile", said: firstError(ended.errors) };
  for (const line of ended.out.split("\n")) {
    if (!line.startsWith("{")) continue;
    const { executable, profile } = JSON.parse(line) as Artifact;
    if (typeof executable === "string" && profile?.test === true) return executable;
  }
  return { kind: "broken", said: "cargo names no executable" };
}

/** What cargo says of something that it has built. */
interface Artifact {
  readonly executable?: string | null;
  readonly profile?: { readonly test?: boolean };
}

function firstError(text: string): string {
  const lines = text.split("\n");
  return lines.find((line) => line.startsWith("error")) ?? lines.slice(-3).join(" ");
}

/** What the failing assertion said. */
function why(text: string): string {
  const lines = text.split("\n");
  const at = lines.findIndex((line) => /panicked at/.test(line));
  if (at < 0) return lines.filter((line) => line.trim() !== "").at(-1) ?? "";
  const message = lines.slice(at + 1).filter((line) => !line.startsWith("note: run with"));
  return message.slice(0, 4).join(" ").trim();
}

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly errors: string;
  readonly late: boolean;
}

interface Surroundings {
  readonly cwd: string;
  readonly limitMs: number;
  readonly env?: Readonly<Record<string, string>>;
}

/** Runs a program to its end, or ends it when it takes too long. */
function ending(program: string, args: readonly string[], around: Surroundings): Promise<Ended> {
  // The tests are of the copy's own binary, whatever the caller's environment names.
  const { SHOAL_CORE: _, ...env } = { ...process.env, ...around.env };
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd: around.cwd,
      env,
      stdio: ["ignore", "pipe", "pipe"],
    });
    let out = "";
    let errors = "";
    child.stdout.on("data", (chunk: Buffer) => {
      out += chunk.toString();
    });
    child.stderr.on("data", (chunk: Buffer) => {
      errors += chunk.toString();
    });
    let late = false;
    const limit = setTimeout(() => {
      late = true;
      child.kill("SIGKILL");
    }, around.limitMs);
    child.on("error", reject);
    child.on("close", (code) => {
      clearTimeout(limit);
      resolve({ code, out, errors, late });
    });
  });
}
