/** A node key file in memory, which can be copied at any moment and fail when told to. */
import type { DataKeys, NodeKeyFile } from "../node-key-file.ts";

export class MemoryKeyFile implements NodeKeyFile {
  readonly path = "/memory/swarm-node.pem";
  keys: DataKeys | null;
  failNextSave: Error | null = null;
  onChange: (() => void) | null = null;
  constructor(keys: DataKeys | null = null) {
    this.keys = keys;
  }
  copy(): MemoryKeyFile {
    return new MemoryKeyFile(this.keys);
  }
  async saveIdentity(): Promise<void> {}
  async dataKeys(): Promise<DataKeys | null> {
    return this.keys;
  }
  async saveDataKeys(keys: DataKeys | null): Promise<void> {
    const error = this.failNextSave;
    this.failNextSave = null;
    if (error !== null) throw error;
    this.keys = keys;
    this.onChange?.();
  }
}
