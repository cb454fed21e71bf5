/** Whether the simulator or etcd's transcripts catch what is wrong with a copy, each in a process of its own with a time limit. */
import { spawn } from "node:child_process";
import { join } from "node:path";

/** What a check said of one copy. */
export type Verdict =
  | { readonly kind: "clean"; readonly seeds: number | null }
  | {
      readonly kind: "caught";
      readonly by: "simulator" | "conformance";
      /** Seeds until it was caught, that one counted, when they began with 1; null: no seeds were needed. */
      readonly seeds: number | null;
      readonly said: string;
    }
  /** The check itself did not come to an end, or not to a verdict. */
  | { readonly kind: "broken"; readonly said: string };

/** Runs the seeds `from` to `through` of Raft alone in the copy `folder`, up to the first that fails. */
export async function simulate(
  folder: string,
  from: number,
  through: number,
  limitMs: number,
): Promise<Verdict> {
  const seeds = ["--from", String(from), "--seeds", String(through - from + 1), "--stop-at-first"];
  const ended = await run(folder, ["sim/run.js", "--scenario", "raft", ...seeds], limitMs);
  const found = /^seed (\d+): VIOLATION(?: after [\d.]+ s)?: (.*)$/m.exec(ended.out);
  if (found !== null) {
    const said = found[2] ?? "";
    return { kind: "caught", by: "simulator", seeds: Number(found[1]), said };
  }
  if (ended.code === 0) return { kind: "clean", seeds: through };
  return { kind: "broken", said: ended.why };
}

/** Runs the transcripts of quorums, of changes of membership and of whole cores (levels 1 and 2) in the copy. */
export async function conform(folder: string, data: string, limitMs: number): Promise<Verdict> {
  const sets = ["quorum", "confchange", "interaction"].flatMap((set) => ["--set", set]);
  const args = ["conformance/run.js", "raft", ...sets];
  const ended = await run(folder, args, limitMs, { SHOAL_SHARED: data });
  if (ended.code === 0) return { kind: "clean", seeds: null };
  const failed = /^ {2}(\S+): (\d+)\/(\d+)$/gm;
  for (const [, file, passed, all] of ended.out.matchAll(failed)) {
    if (passed === all) continue;
    const said = `${file}: ${passed} of ${all} commands pass`;
    return { kind: "caught", by: "conformance", seeds: null, said };
  }
  return { kind: "broken", said: ended.why };
}

interface Ended {
  readonly code: number | null;
  readonly out: string;
  /** Its last words, for one that ended neither well nor with a verdict. */
  readonly why: string;
}

function run(
  folder: string,
  args: readonly string[],
  limitMs: number,
  environment: Readonly<Record<string, string>> = {},
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ["--max-semi-space-size=32", ...args], {
      cwd: folder,
      env: { ...process.env, ...environment },
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
    }, limitMs);
    child.on("error", reject);
    child.on("close", (code) => {
      clearTimeout(limit);
      const last =
        errors
          .trim()
          .split("\n")
          .find((line) => /Error/.test(line)) ?? errors.trim();
      const why = late
        ? `it had not ended after ${Math.round(limitMs / 1_000)} s (${out.trim().split("\n").at(-1)})`
        : `${join(folder, args[0] ?? "")} ended with ${code}: ${last}`;
      resolve({ code, out, why });
    });
  });
}
