/** Facts of the host that containers depend on: its resolver, its paths, its processes. */
import { execFile } from "node:child_process";
import { access, readFile } from "node:fs/promises";
import { promisify } from "node:util";
import type { HostFacts } from "../engine/container-records.ts";
import { parseResolvConf } from "../engine/etc-files.ts";
import { failure } from "../lib/errors.ts";

/** How long `ps` may take. */
const psTimeoutMs = 5_000;
/** Most output of `ps`, in bytes. */
const psBytesMax: number = 16 * 1024 * 1024;

const run = promisify(execFile);

export const hostFacts: HostFacts = {
  async resolvConf() {
    try {
      return parseResolvConf(await readFile("/etc/resolv.conf", "utf8"));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      return { nameservers: [], search: [], options: [] };
    }
  },
  async exists(path) {
    return await access(path).then(
      () => true,
      () => false,
    );
  },
  async ps(args) {
    try {
      const { stdout } = await run("ps", [...args], {
        timeout: psTimeoutMs,
        maxBuffer: psBytesMax,
      });
      return stdout;
    } catch (error) {
      const { stderr, code } = error as { stderr?: string; code?: unknown };
      const why =
        code === "ENOENT" ? "ps is not installed (package procps)" : (stderr ?? "").trim();
      throw failure("invalid", `error running ps: ${why || String(error)}`, error);
    }
  },
};
