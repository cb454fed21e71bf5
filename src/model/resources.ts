/** CPU and memory as numbers that can be added. */
export interface Resources {
  /** Billionths of a CPU. */
  readonly nanoCpus: number;
  readonly memoryBytes: number;
}
export interface Limits extends Resources {
  /** Most processes and threads; 0 is unlimited. */
  readonly pids: number;
}
export const noResources: Resources = { nanoCpus: 0, memoryBytes: 0 };
