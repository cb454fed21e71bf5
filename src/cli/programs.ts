/** Where this project's own programs are: next to the code that runs, wherever the checkout is. */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { failure } from "../lib/errors.ts";
import type { NetnsPrograms } from "../machine/netns/driver.ts";

/** The directory that holds package.json and bin/. Throws `internal` when this file was moved out of it. */
export function projectRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, "package.json")) || !existsSync(join(directory, "bin"))) {
    const parent = dirname(directory);
    if (parent === directory) {
      throw failure(
        "internal",
        `finding shoald: no project around ${fileURLToPath(import.meta.url)}`,
      );
    }
    directory = parent;
  }
  return directory;
}

/** The programs of a netns machine; SHOAL_CORE and SHOALD name others. */
export function netnsPrograms(env: Readonly<Record<string, string | undefined>>): NetnsPrograms {
  const core = env["SHOAL_CORE"] || join(projectRoot(), "native/target/release/shoal-core");
  const daemon = env["SHOALD"] || join(projectRoot(), "bin/shoald");
  return { init: [core, "init", "--keep", "--restart"], daemon: [daemon] };
}
