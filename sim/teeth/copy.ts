/** Copies of the simulator and the conformance runs with everything that they import, as JavaScript: whole, or with one fault. */
import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import ts from "typescript";
import type { Fault } from "./bank.ts";
import { changed, whyStale } from "./change.ts";

const entryPoints = ["sim/run.ts", "conformance/run.ts"];

export interface Copy {
  readonly folder: string;
  /** The sources as they were copied, by their path below the checkout. */
  readonly sources: ReadonlyMap<string, string>;
}

/** Compiles what the runs import of the checkout `root` into `folder`, without checking types. */
export function copyOf(root: string, folder: string): Copy {
  const sources = new Map<string, string>();
  const queue = [...entryPoints];
  for (let file = queue.pop(); file !== undefined; file = queue.pop()) {
    if (sources.has(file)) continue;
    const text = readFileSync(join(root, file), "utf8");
    sources.set(file, text);
    compile(folder, file, text);
    for (const { fileName } of ts.preProcessFile(text, true, true).importedFiles) {
      if (fileName.startsWith(".")) queue.push(normalize(join(dirname(file), fileName)));
    }
  }
  writeFileSync(join(folder, "package.json"), '{"type":"module"}\n');
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
  return { folder, sources };
}

/** A copy of `whole` in `folder` with `fault` in it. Throws when the bank no longer fits the source. */
export function copyWith(whole: Copy, fault: Fault, folder: string): void {
  const text = faulty(fault, whole.sources.get(fault.file));
  cpSync(whole.folder, folder, { recursive: true, verbatimSymlinks: true });
  compile(folder, fault.file, text);
}

/** Removes a copy, which may be half made. */
export function removeCopy(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
}

/** `text`, the source of `fault.file`, with the fault in it. Throws unless what is to be changed is there exactly once. */
export function faulty(fault: Fault, text: string | undefined): string {
  const stale = (why: string): Error =>
    new Error(
      `the fault ${fault.name} no longer fits ${fault.file}: ${why}. Bring sim/teeth/bank.ts up to date.`,
    );
  if (text === undefined) throw stale("the simulator does not import that file");
  const why = whyStale(fault, text);
  if (why !== null) throw stale(why);
  return changed(fault, text);
}

function compile(folder: string, file: string, text: string): void {
  const { outputText } = ts.transpileModule(text, {
    fileName: file,
    compilerOptions: {
      target: ts.ScriptTarget.ES2023,
      module: ts.ModuleKind.ESNext,
      verbatimModuleSyntax: true,
      rewriteRelativeImportExtensions: true,
    },
  });
  const to = join(folder, file.replace(/\.ts$/, ".js"));
  mkdirSync(dirname(to), { recursive: true });
  writeFileSync(to, outputText);
}
