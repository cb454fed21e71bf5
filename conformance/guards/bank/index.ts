/** The bank: every guard of the security list, with the test that misses it. */
import type { Guard } from "../guard.ts";
import { coreGuards } from "./core.ts";
import { fileGuards } from "./files.ts";
import { layerGuards } from "./layers.ts";
import { processGuards } from "./process.ts";

export const bank: readonly Guard[] = [
  ...processGuards,
  ...fileGuards,
  ...layerGuards,
  ...coreGuards,
];
