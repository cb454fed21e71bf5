/** What must hold of the rows as each entry changes them: nothing goes back, nothing is given out twice. */
import type { Network } from "../../src/model/network.ts";
import type { Task } from "../../src/model/task.ts";
import { isBefore, isTerminal } from "../../src/model/task-state.ts";
import type { Committed } from "../../src/store/types.ts";
import type { World } from "../world.ts";

/** Follows the one history, each entry once. */
export class RowChecker {
  readonly #world: World;
  readonly tasks: Map<string, Task> = new Map();
  readonly #holders = new Map<string, string>();
  readonly #vnis = new Map<number, string>();
  /** The process of this task runs on this node. */
  runsOn: (taskId: string) => string | null = () => null;

  constructor(world: World) {
    this.#world = world;
  }

  committed({ index, changes }: Committed): void {
    // What is freed first: an address may change hands within one entry.
    for (const change of changes) {
      if (change.table === "tasks" && change.before !== null) this.#free(change.before);
      if (change.table === "networks" && change.before !== null) {
        this.#vnis.delete(change.before.vni);
      }
    }
    for (const change of changes) {
      if (change.table === "tasks") this.#task(index, change.before, change.after);
      if (change.table === "networks" && change.after !== null) this.#network(index, change.after);
    }
  }

  #task(index: number, before: Task | null, now: Task | null): void {
    const id = (now ?? before)?.id ?? "";
    const bad = (what: string): void => this.#world.fail(`index ${index}: task ${id} ${what}`);
    if (now === null) {
      this.tasks.delete(id);
      const host = this.runsOn(id);
      if (host !== null) bad(`is deleted while it runs on ${host}`);
      return;
    }
    this.tasks.set(id, now);
    if (before !== null) {
      if (isBefore(now.desired, before.desired)) {
        bad(`is desired ${now.desired} after ${before.desired}`);
      }
      if (isBefore(now.status.state, before.status.state)) {
        bad(`is ${now.status.state} after ${before.status.state}`);
      }
      if (before.nodeId !== null && now.nodeId !== before.nodeId) {
        bad(`moves from node ${before.nodeId} to ${now.nodeId}`);
      }
      if (now.serviceId !== before.serviceId || now.slot !== before.slot) bad("changes its slot");
    }
    if (isTerminal(now.status.state)) {
      const ended = before === null || !isTerminal(before.status.state);
      const host = ended && now.status.state !== "orphaned" ? this.runsOn(id) : null;
      if (host !== null) bad(`is ${now.status.state}, but its process runs on ${host}`);
      return;
    }
    for (const { networkId, address } of now.attachments) {
      const key = `${networkId}/${address}`;
      const other = this.#holders.get(key);
      if (other !== undefined && other !== id) bad(`is given ${address}, which task ${other} has`);
      this.#holders.set(key, id);
    }
  }

  #free(task: Task): void {
    for (const { networkId, address } of task.attachments) {
      const key = `${networkId}/${address}`;
      if (this.#holders.get(key) === task.id) this.#holders.delete(key);
    }
  }

  #network(index: number, network: Network): void {
    const other = this.#vnis.get(network.vni);
    if (other !== undefined && other !== network.id) {
      this.#world.fail(
        `index ${index}: networks ${other} and ${network.id} share VNI ${network.vni}`,
      );
    }
    this.#vnis.set(network.vni, network.id);
  }
}
