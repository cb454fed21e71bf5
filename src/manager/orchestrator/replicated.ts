/** Controller of replicated services: so many slots, each with one task that is what the service wants. */
import type { Controller, Decision } from "../controller.ts";
import { quiet } from "../controller.ts";
import { isDirty } from "./dirty.ts";
import { createsPerDecisionMax } from "./limits.ts";
import { isFinished, type Pass, stepSlot, successor } from "./restart.ts";
import { checkService, DecisionBuilder, desire } from "./rows.ts";
import { freeNumbers, keepOrder } from "./scale.ts";
import { serviceKeysOf, servicesOf } from "./service-keys.ts";
import { type Slot, slotsOf } from "./slots.ts";
import { planUpdate, startSlot } from "./update.ts";

/** Keys are ids of services. */
export const replicatedController: Controller = {
  name: "replicated",
  keysOf: (change, view) => serviceKeysOf(change, view, "replicated"),
  keysAtStart: (view) => servicesOf(view, "replicated"),
  reconcile(key, view, now, random): Decision {
    const service = view.table("services").get(key);
    if (service?.spec.mode.kind !== "replicated") return quiet;
    const pass: Pass = {
      service,
      view,
      now,
      random,
      out: new DecisionBuilder(),
      isDirty: (task) => isDirty(task, service, view),
    };
    const slots = slotsOf(view, service.id);
    const counted = [...slots.values()].filter((slot) => slot.live.length > 0 || isFinished(slot));
    const kept = scale(pass, slots, counted, service.spec.mode.replicas);
    stepSlots(pass, kept, () => true);
    return pass.out.decision();
  },
};

/** Moves the update on, and every slot that the update does not touch now. `mayReplace` says where something new may start. */
export function stepSlots(
  pass: Pass,
  slots: readonly Slot[],
  mayReplace: (slot: Slot) => boolean,
): void {
  const plan = planUpdate(pass, slots.filter(mayReplace));
  if (!plan.rollsBack) {
    for (const slot of slots) {
      if (plan.start.has(slot)) startSlot(pass, slot);
      else stepSlot(pass, slot, mayReplace(slot));
    }
  }
  // Last: the groups before it hold themselves to the service as it was read.
  if (plan.service !== null) pass.out.add([plan.service]);
}

/** Adds or removes slots; returns those that stay, by number. */
function scale(
  pass: Pass,
  slots: ReadonlyMap<string, Slot>,
  counted: readonly Slot[],
  replicas: number,
): readonly Slot[] {
  const order = counted.length > replicas ? keepOrder(counted) : counted;
  for (const victim of order.slice(replicas)) remove(pass, victim);
  const kept = [...order.slice(0, replicas)].sort((a, b) => a.number - b.number);

  const missing = Math.max(0, replicas - counted.length);
  const now = Math.min(missing, createsPerDecisionMax);
  const numbers = freeNumbers(new Set(counted.map(({ number }) => number)), now);
  for (const number of numbers) {
    const place = { slot: number, nodeId: null };
    const task = successor(pass, slots.get(String(number)), place, [], null);
    pass.out.add([checkService(pass.service), task]);
  }
  if (missing > now) pass.out.lookAt(pass.now);

  const used = new Set([...counted.map(({ number }) => number), ...numbers]);
  // What is left of slots that nobody wants any more is history of nothing.
  for (const slot of slots.values()) if (!used.has(slot.number)) remove(pass, slot);
  return kept;
}

function remove(pass: Pass, slot: Slot): void {
  const present = slot.tasks.filter((task) => task.desired !== "remove");
  pass.out.add(present.map((task) => desire(task, "remove")));
}
