/** The node key file of a simulated host: replaced whole or not at all, as an atomic rename does it. */
import type { DataKeys, NodeKeyFile } from "../../src/io/node-key-file.ts";
import type { SimDisk } from "./disk.ts";
import type { Life } from "./life.ts";

export class SimKeyFile {
  keys: DataKeys | null = null;
  readonly #disk: SimDisk;

  constructor(disk: SimDisk) {
    this.#disk = disk;
  }

  /** As `life` sees it; null: as one sees it from outside, who only reads. */
  seenBy(life: Life | null): NodeKeyFile {
    return {
      path: "/sim/swarm-node.key",
      saveIdentity: async () => {},
      dataKeys: async () => this.keys,
      saveDataKeys: async (keys) => {
        if (life === null) return;
        await this.#disk.perform(life, () => {
          this.keys = keys;
        });
      },
    };
  }
}
