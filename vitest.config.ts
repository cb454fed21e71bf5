import { defineConfig } from "vitest/config";
export default defineConfig({
  test: {
    projects: [
      {
        extends: true,
        test: {
          name: "unit",
          include: ["src/**/*.test.ts", "tidy/**/*.test.ts", "conformance/**/*.test.ts"],
          testTimeout: 20_000,
        },
      },
      { extends: true, test: { name: "sim", include: ["sim/**/*.sim.ts"], testTimeout: 60_000 } },
      {
        extends: true,
        test: {
          name: "cluster",
          include: ["cluster-tests/**/*.cluster.ts"],
          fileParallelism: false,
          testTimeout: 180_000,
          hookTimeout: 180_000,
        },
      },
    ],
  },
});
