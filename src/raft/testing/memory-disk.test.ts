/** Goal: the fake that the core is tested on keeps Storage's promises. Method: the suite that the real log runs. */
import { MemoryDisk, memoryStorage } from "./memory-disk.ts";
import { storageSuite } from "./storage-suite.ts";

storageSuite("memoryStorage()", async () => {
  const disk = new MemoryDisk();
  return { open: async () => memoryStorage(disk), remove: async () => {} };
});
