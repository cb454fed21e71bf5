/** Controller of global services: one task on each node that may have one. */
import type { Node } from "../../model/node.ts";
import type { Service } from "../../model/service.ts";
import type { Controller, Decision } from "../controller.ts";
import { quiet } from "../controller.ts";
import { meetsConstraints } from "./constraints.ts";
import { isDirty } from "./dirty.ts";
import { createsPerDecisionMax } from "./limits.ts";
import { stepSlots } from "./replicated.ts";
import { isFinished, type Pass, successor } from "./restart.ts";
import { checkService, DecisionBuilder, desire } from "./rows.ts";
import { serviceKeysOf, servicesOf } from "./service-keys.ts";
import { type Slot, slotsOf } from "./slots.ts";

/** Keys are ids of services. */
export const globalController: Controller = {
  name: "global",
  keysOf: (change, view) => serviceKeysOf(change, view, "global"),
  keysAtStart: (view) => servicesOf(view, "global"),
  reconcile(key, view, now, random): Decision {
    const service = view.table("services").get(key);
    if (service?.spec.mode.kind !== "global") return quiet;
    const pass: Pass = {
      service,
      view,
      now,
      random,
      out: new DecisionBuilder(),
      isDirty: (task) => isDirty(task, service, view),
    };
    const slots = slotsOf(view, service.id);
    const wanted = new Map<string, Node>();
    for (const node of view.table("nodes").all()) {
      if (mayHave(node, service)) wanted.set(node.id, node);
    }
    for (const slot of slots.values()) if (!wanted.has(slot.key)) leave(pass, slot);
    const kept = fill(pass, wanted, slots);
    // A paused node keeps what it has, but gets nothing new: no replacement, no update.
    stepSlots(pass, kept, (slot) => wanted.get(slot.key)?.spec.availability === "active");
    return pass.out.decision();
  },
};

/** Whether `node` is one that a task of `service` belongs on. One that never said what it is cannot be judged yet. */
function mayHave(node: Node, service: Service): boolean {
  return (
    node.description !== null &&
    node.state !== "down" &&
    node.spec.availability !== "drain" &&
    meetsConstraints(service.spec.task.placement, node)
  );
}

/** Gives each wanted node that has nothing a task; returns the slots that have one. */
function fill(
  pass: Pass,
  wanted: ReadonlyMap<string, Node>,
  slots: ReadonlyMap<string, Slot>,
): readonly Slot[] {
  const kept: Slot[] = [];
  let created = 0;
  for (const node of wanted.values()) {
    const slot = slots.get(node.id);
    if (slot !== undefined && (slot.live.length > 0 || isFinished(slot))) {
      kept.push(slot);
    } else if (node.spec.availability === "active") {
      if (created === createsPerDecisionMax) {
        pass.out.lookAt(pass.now);
        break;
      }
      created += 1;
      const task = successor(pass, slot, { slot: 0, nodeId: node.id }, [], null);
      pass.out.add([checkService(pass.service), task]);
    }
  }
  return kept;
}

/** A node that may no longer have a task: stop it; nothing of a node that is gone is kept. */
function leave(pass: Pass, slot: Slot): void {
  const gone = pass.view.table("nodes").get(slot.key) === undefined;
  const concerned = gone ? slot.tasks.filter((task) => task.desired !== "remove") : slot.live;
  pass.out.add(concerned.map((task) => desire(task, gone ? "remove" : "shutdown")));
}
