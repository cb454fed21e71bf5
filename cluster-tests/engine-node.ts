/** One machine's engine over the real native core, in a directory of its own, for tests. */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { createEngine, type Engine } from "../src/engine/engine.ts";
import type { ImageStore } from "../src/image/image-store.ts";
import { createContainerRecords } from "../src/io/container-records.ts";
import { hostFacts } from "../src/io/host-facts.ts";
import { openImageStore } from "../src/io/image-store.ts";
import { jsonFileLogs } from "../src/io/json-file-log.ts";
import { connectNative, type NativeClient } from "../src/io/native-client.ts";
import { type CoreKeeper, spawnCore } from "../src/io/native-core-process.ts";
import { systemClock } from "../src/io/system-clock.ts";
import { silentLog } from "../src/lib/log.ts";

const binary =
  process.env["SHOAL_CORE"] ??
  new URL("../native/target/release/shoal-core", import.meta.url).pathname;
/** What these tests need and is not here; null when they can run. */
export const missing: string | null =
  process.getuid?.() !== 0
    ? "root"
    : !existsSync(binary)
      ? binary
      : !existsSync("/usr/bin/busybox")
        ? "/usr/bin/busybox"
        : null;

export interface EngineNode {
  readonly root: string;
  readonly keeper: CoreKeeper;
  readonly native: NativeClient;
  readonly images: ImageStore;
  readonly engine: Engine;
}

/** Opens the machine in `root`: the core is started unless it runs. */
export async function open(root: string): Promise<EngineNode> {
  const socketPath = join(root, "exec", "core.sock");
  const keeper = await spawnCore({
    binary,
    execRoot: join(root, "exec"),
    socketPath,
    cgroupParent: "/shoal-engine-test",
    log: silentLog,
  });
  const native = connectNative({ socketPath, log: silentLog });
  await native.ready();
  const dataRoot = join(root, "data");
  const images = await openImageStore({
    dataRoot,
    unpack: (archive, diffId, destination) =>
      native.call("unpack", { archive, digest: null, diffId, destination, devices: "make" }),
    clock: systemClock,
    log: silentLog,
    machine: "x86_64",
  });
  const engine = createEngine({
    native,
    images,
    records: createContainerRecords(dataRoot),
    logs: jsonFileLogs,
    host: hostFacts,
    clock: systemClock,
    log: silentLog,
    cgroupParent: "/shoal-engine-test",
    architecture: "amd64",
  });
  await engine.open();
  return { root, keeper, native, images, engine };
}

/** Ends this process's part; the core and its containers go on. */
export function leave(node: EngineNode): void {
  node.engine.close();
  node.keeper.close();
  node.native.close();
}

/** Removes every container, ends the core, and deletes all that it had. */
export async function destroy(node: EngineNode): Promise<void> {
  for (const container of await node.engine.list()) await node.engine.remove(container.id, true);
  node.keeper.close();
  await node.native.call("shutdown", {});
  leave(node);
  execFileSync("sh", ["-c", `umount -l ${node.root}/exec/netns 2>/dev/null; true`]);
  await rm(node.root, { recursive: true, force: true });
}
