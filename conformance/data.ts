/** Where the outside data lies, and whether it is the data that we mean. */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { gunzipSync } from "node:zlib";
import { DATA_FILES } from "./data-files.ts";

/** The folder of etcd's Raft data: below $SHOAL_SHARED, else below the folder `shared` beside the checkout. */
export function dataFolder(): string {
  return join(
    process.env["SHOAL_SHARED"] ?? join(checkout(), "..", "shared"),
    "data",
    "raft",
    "etcd-raft",
  );
}

/** What to say when the folder is not there; null when it is. */
export function missingData(): string | null {
  const folder = dataFolder();
  return existsSync(folder)
    ? null
    : `the outside data is missing: there is no ${folder}; set SHOAL_SHARED to the folder that holds data/raft`;
}

export interface DataFile {
  /** Below the data folder. */
  readonly path: string;
  /** Unpacked, when its name ends in .gz. */
  readonly text: string;
  /** Not what it should be, in words; null when it is. */
  readonly complaint: string | null;
}

/** The known files whose paths begin with `prefix`, in order of their names. */
export function dataFiles(prefix: string): DataFile[] {
  return Object.entries(DATA_FILES)
    .filter(([path]) => path.startsWith(prefix))
    .map(([path, sha256]) => {
      const file = join(dataFolder(), path);
      if (!existsSync(file)) return { path, text: "", complaint: `${file} is missing` };
      const bytes = readFileSync(file);
      const found = createHash("sha256").update(bytes).digest("hex");
      return {
        path,
        text: (path.endsWith(".gz") ? gunzipSync(bytes) : bytes).toString("utf8"),
        complaint:
          found === sha256 ? null : `${file} was changed: its sha256 is ${found}, not ${sha256}`,
      };
    });
}

/** The checkout that this code belongs to, also when it runs from dist/. */
function checkout(): string {
  let folder = import.meta.dirname;
  while (!existsSync(join(folder, "package.json")) && folder !== dirname(folder))
    folder = dirname(folder);
  return folder;
}
