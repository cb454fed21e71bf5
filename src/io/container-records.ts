/** Container records under DATA_ROOT/containers/ID/config.json, with the container's own files beside. */
import { mkdir, readdir, rename, rm, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ContainerRecords } from "../engine/container-records.ts";
import { failure } from "../lib/errors.ts";
import type { Container } from "../model/container.ts";
import { readChecked, writeChecked, writeCheckedQuickly } from "./checked-json.ts";

const idPattern = /^[0-9a-f]{64}$/;

/** Records in `dataRoot`. */
export function createContainerRecords(dataRoot: string): ContainerRecords {
  const root = join(dataRoot, "containers");
  const directoryOf = (id: string) => join(root, id);
  const configOf = (id: string) => join(root, id, "config.json");
  const queues = new Map<string, Promise<unknown>>();

  /** What is done to one container's files is done in the order it was asked for. */
  function inTurn<T>(id: string, work: () => Promise<T>): Promise<T> {
    const turn = (queues.get(id) ?? Promise.resolve()).then(work);
    const settled = turn.catch(() => {});
    queues.set(id, settled);
    settled.finally(() => {
      if (queues.get(id) === settled) queues.delete(id);
    });
    return turn;
  }

  const records: ContainerRecords = {
    async load() {
      await mkdir(root, { recursive: true, mode: 0o700 });
      const found: Container[] = [];
      for (const name of await readdir(root)) {
        const record = idPattern.test(name) ? await readChecked(configOf(name)) : null;
        // Without its record a directory is what is left of a container that was being made or removed.
        if (record === null) await rm(join(root, name), { recursive: true, force: true });
        else found.push(checkContainer(record, configOf(name)));
      }
      return found;
    },
    async save(container, durable) {
      const path = configOf(container.id);
      if (durable) return await writeChecked(path, container);
      await mkdir(directoryOf(container.id), { recursive: true, mode: 0o700 });
      await writeCheckedQuickly(path, container);
    },
    async writeFiles(containerId, files) {
      const directory = directoryOf(containerId);
      await mkdir(directory, { recursive: true, mode: 0o710 });
      const paths: Record<string, string> = {};
      for (const [name, text] of Object.entries<string>(files)) {
        const path = join(directory, name);
        await writeFile(path, text, { mode: 0o644 });
        paths[name] = path;
      }
      return paths as typeof files;
    },
    directoryOf,
    async freeBytes() {
      await mkdir(root, { recursive: true, mode: 0o700 });
      const { bavail, bsize } = await statfs(root);
      return bavail * bsize;
    },
    async remove(containerId) {
      const directory = directoryOf(containerId);
      // Out of the way first, so that a crash in the middle leaves nothing that looks like a container.
      const gone = join(root, `${containerId}.removing`);
      await rm(gone, { recursive: true, force: true });
      try {
        await rename(directory, gone);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
        throw failure("internal", `removing ${directory}: ${String(error)}`, error);
      }
      await rm(gone, { recursive: true, force: true });
    },
  };
  return {
    ...records,
    save: (container, durable) => inTurn(container.id, () => records.save(container, durable)),
    writeFiles: (containerId, files) =>
      inTurn(containerId, () => records.writeFiles(containerId, files)),
    remove: (containerId) => inTurn(containerId, () => records.remove(containerId)),
  };
}

function checkContainer(value: unknown, path: string): Container {
  const record = value as Partial<Container>;
  if (typeof record.id !== "string" || typeof record.name !== "string" || !record.labels) {
    throw failure("internal", `reading ${path}: it is no container record; remove its directory`);
  }
  return record as Container;
}
