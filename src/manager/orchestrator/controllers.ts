/** The orchestrator's controllers, in the order in which a pass asks them. */
import type { Controller } from "../controller.ts";
import { enforcerController } from "./enforcer.ts";
import { globalController } from "./global.ts";
import { reaperController } from "./reaper.ts";
import { replicatedController } from "./replicated.ts";

export const orchestratorControllers: readonly Controller[] = [
  replicatedController,
  globalController,
  enforcerController,
  reaperController,
];
