/** The only source of chance: seeded in the simulator, seeded from the OS in production (io/system-random.ts). */
export interface Random {
  /** A uniform integer in [0, limit). `limit` is a positive safe integer. */
  below(limit: number): number;
  /** A fresh object id: 25 characters of base 36, about 129 random bits (as swarmkit's identity package). */
  id(): string;
}
