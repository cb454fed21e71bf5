/** `shoal machine scp`: copies files and folders between this box and machines, through programs run in the machines. */
import { type ChildProcess, type StdioOptions, spawn } from "node:child_process";
import { PassThrough } from "node:stream";
import { pipeline } from "node:stream/promises";
import { failure, messageOf } from "../lib/errors.ts";
import { exitCode } from "./process.ts";
import type { Machines } from "./provision.ts";
import type { MachineRecord } from "./record.ts";

/** One side of a copy; `machine` is null for this box. */
export interface CopyPlace {
  readonly machine: string | null;
  readonly path: string;
}

/** Reads `[NAME:]PATH`. A colon after a slash belongs to the path. */
export function parsePlace(text: string): CopyPlace {
  const match = /^([a-zA-Z0-9][a-zA-Z0-9\-.]*):(.*)$/s.exec(text);
  const machine = match?.[1];
  if (match === null || machine === undefined) return { machine: null, path: text };
  return { machine, path: match[2] === "" ? "." : (match[2] ?? ".") };
}

/** Sends a file as it is, or with -r a folder as tar; the first line says the mode. Arguments: path, "file" or "tree". */
const sendScript = `set -e
if [ "$2" = tree ] && [ -d "$1" ]; then echo "tree"; exec tar -C "$1" -cf - .
elif [ -d "$1" ]; then echo "$1: is a directory (say -r to copy it)" >&2; exit 1
else mode=$(stat -c %a "$1"); echo "file $mode"; exec cat "$1"; fi`;

/** Takes what sendScript sends. A path that is a folder gets it inside, under its own name. Arguments: path, name. */
const receiveScript = `set -e
target=$1; if [ -d "$target" ]; then target=$target/$2; fi
kind=; mode=; c=
while :; do c=$(dd bs=1 count=1 2>/dev/null; echo .); [ "$c" = "
." ] && break; [ "$c" = . ] && { echo "nothing was sent" >&2; exit 1; }; kind="$kind\${c%.}"; done
case $kind in
tree) mkdir -p "$target"; exec tar -C "$target" -xf - ;;
file*) cat > "$target"; chmod "\${kind#file }" "$target" ;;
*) echo "not understood: $kind" >&2; exit 1 ;;
esac`;

/** Copies `from` to `to`; with `recursive` a folder too. Throws with what the programs on both sides said. */
export async function scp(
  machines: Machines,
  from: CopyPlace,
  to: CopyPlace,
  recursive: boolean,
): Promise<void> {
  const name = from.path.replace(/\/+$/, "").split("/").at(-1) ?? "";
  const sender = await start(machines, from, [
    ...["sh", "-c", sendScript, "scp"],
    ...[from.path, recursive ? "tree" : "file"],
  ]);
  const receiver = await start(machines, to, [
    ...["sh", "-c", receiveScript, "scp"],
    ...[to.path, name === "" || name === ".." ? "." : name],
  ]);
  let broken: string | null = null;
  if (receiver.child.stdin !== null) {
    try {
      await pipeline(sender.output, receiver.child.stdin);
    } catch (error) {
      // One side ended early; its exit code and words tell why.
      broken = messageOf(error);
    }
  }
  const codes = await Promise.all([sender.ended, receiver.ended]);
  if (codes.every((code) => code === 0) && broken === null) return;
  const why = [sender.said(), receiver.said()].filter((text) => text !== "").join("; ");
  throw failure(
    "internal",
    `copying ${show(from)} to ${show(to)}: ${why || broken || `exit codes ${codes.join(" and ")}`}`,
  );
}

interface Side {
  readonly child: ChildProcess;
  /** Read from the start: what a program wrote that nobody reads when it ends is thrown away by Node. */
  readonly output: PassThrough;
  /** Watched from the start: a short program ends before anybody asks. */
  readonly ended: Promise<number>;
  readonly said: () => string;
}

async function start(machines: Machines, place: CopyPlace, argv: readonly string[]): Promise<Side> {
  const child = await startProgram(machines, place, argv);
  const pieces: Buffer[] = [];
  child.stderr?.on("data", (piece: Buffer) => pieces.push(piece));
  // The sender reads nothing.
  child.stdin?.on("error", () => child.stdin?.destroy());
  const output = new PassThrough();
  child.stdout?.pipe(output);
  // A program that could not be started closes it without an end.
  child.stdout?.on("close", () => output.end());
  const ended = exitCode(child);
  return { child, output, ended, said: () => Buffer.concat(pieces).toString("utf8").trim() };
}

async function startProgram(
  machines: Machines,
  place: CopyPlace,
  argv: readonly string[],
): Promise<ChildProcess> {
  if (place.machine === null) {
    const [program = "", ...rest] = argv;
    return spawn(program, rest, { stdio: ["pipe", "pipe", "pipe"] });
  }
  const record: MachineRecord = await machines.store.get(place.machine);
  const options = { stdio: ["pipe", "pipe", "pipe"] as StdioOptions, tty: false };
  return machines.driver(record.driver).spawn(record, argv, options);
}

function show(place: CopyPlace): string {
  return place.machine === null ? place.path : `${place.machine}:${place.path}`;
}
