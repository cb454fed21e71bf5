/** A copy of the native core's source that guards are taken out of, one at a time, and put back. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { changed, whyStale } from "../../sim/teeth/change.ts";
import type { Guard, Removal } from "./guard.ts";

/** Where the crates are, below the checkout and below a copy's folder. */
const CRATES = "native/crates";

/** Brings the copy in `folder` up to date with the checkout `root`. Files that are the same keep their times, so that little is built anew. */
export function copyNative(root: string, folder: string): void {
  mirror(join(root, "native"), join(folder, "native"));
}

/** Only where the names of tops are `target`, cargo's own, is anything left out. */
function mirror(from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  const names = readdirSync(from, { withFileTypes: true }).filter(({ name }) => name !== "target");
  const known = new Set(names.map(({ name }) => name));
  for (const name of readdirSync(to)) {
    if (!known.has(name)) rmSync(join(to, name), { recursive: true, force: true });
  }
  for (const entry of names) {
    const [source, copy] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) mirror(source, copy);
    else if (!existsSync(copy) || !readFileSync(source).equals(readFileSync(copy)))
      cpSync(source, copy);
  }
}

/** What each file that a guard is in would be without it. Throws when the bank no longer fits the source in `folder`. */
export function without(guard: Guard, folder: string): ReadonlyMap<string, string> {
  const texts = new Map<string, string>();
  for (const removal of guard.removals) {
    const before = texts.get(removal.file) ?? source(guard, removal, folder);
    const why = whyStale(removal, before);
    if (why !== null) throw stale(guard, removal, why);
    texts.set(removal.file, changed(removal, before));
  }
  return texts;
}

/** Takes a guard out of the copy in `folder`; what is given puts it back. */
export function takeOut(guard: Guard, folder: string): () => void {
  const texts = without(guard, folder);
  const before = new Map(
    [...texts.keys()].map((file) => [file, readFileSync(join(folder, CRATES, file), "utf8")]),
  );
  const write = (all: ReadonlyMap<string, string>): void => {
    for (const [file, text] of all) writeFileSync(join(folder, CRATES, file), text);
  };
  write(texts);
  return () => write(before);
}

function source(guard: Guard, removal: Removal, folder: string): string {
  const path = join(folder, CRATES, removal.file);
  if (!existsSync(path)) throw stale(guard, removal, "there is no such file");
  return readFileSync(path, "utf8");
}

function stale(guard: Guard, removal: Removal, why: string): Error {
  return new Error(
    `the guard ${guard.name} no longer fits ${CRATES}/${removal.file}: ${why}. Bring conformance/guards/bank up to date.`,
  );
}
