/** For tests: where the swagger file and the recordings lie, and what to say when they do not. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const root =
  process.env["SHOAL_SHARED"] ?? join(import.meta.dirname, "..", "..", "..", "..", "shared");
export const engineApiFolder: string = join(root, "data", "engine-api");
export const hasEngineApi: boolean = existsSync(join(engineApiFolder, "recordings"));
/** Ends the names of tests that need the folder, so that a skipped one says what it misses. */
export const needsEngineApi: string = hasEngineApi
  ? ""
  : ` [SKIPPED: ${engineApiFolder} is missing; set SHOAL_SHARED to the folder that holds data/engine-api]`;

/** One exchange of the docker command with dockerd. */
export interface Exchange {
  readonly m: string;
  readonly u: string;
  readonly b: string;
  readonly s: number;
  readonly rb: string;
}

/** The exchanges of a recording. */
export function recording(name: string): readonly Exchange[] {
  return readFileSync(join(engineApiFolder, "recordings", `${name}.jsonl`), "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Exchange);
}

/** The swagger file as text. */
export function swaggerText(): string {
  return readFileSync(join(engineApiFolder, "swagger-v28.2.2.yaml"), "utf8");
}
