/** `service logs`: lines of many tasks, each with its task's name in front, aligned and coloured by nothing. */
import type { Cli } from "../cli.ts";
import type { TaskJson } from "../engine-types.ts";
import { readFrames } from "./stdcopy.ts";
import { NameResolver } from "./tasks.ts";
import { shortId } from "./units.ts";

export interface ServiceLogOptions {
  readonly raw: boolean;
  readonly noTrunc: boolean;
  readonly noResolve: boolean;
  readonly noTaskIds: boolean;
  readonly details: boolean;
  readonly timestamps: boolean;
  /** Most digits a slot has, so that names line up. */
  readonly slotDigits: number;
}
const contextKeys = {
  node: "com.docker.swarm.node.id",
  service: "com.docker.swarm.service.id",
  task: "com.docker.swarm.task.id",
} as const;

/** Writes the frames of a service's log until it ends. Every line begins with its details (`details=1`). */
export async function writeServiceLogs(
  cli: Cli,
  source: AsyncIterable<Buffer>,
  options: ServiceLogOptions,
): Promise<void> {
  const names = new TaskNames(cli, options);
  const held = { stdout: "", stderr: "" };
  for await (const { stream, payload } of readFrames(source)) {
    const lines = (held[stream] + payload.toString("utf8")).split("\n");
    held[stream] = lines.pop() ?? "";
    const out = stream === "stdout" ? cli.out : cli.err;
    for (const line of lines) out.write(`${await formatLine(line, names, options)}\n`);
  }
  for (const stream of ["stdout", "stderr"] as const) {
    if (held[stream] === "") continue;
    (stream === "stdout" ? cli.out : cli.err).write(await formatLine(held[stream], names, options));
  }
}

async function formatLine(
  line: string,
  names: TaskNames,
  options: ServiceLogOptions,
): Promise<string> {
  const parts = line.split(" ");
  const time = options.timestamps ? `${parts.shift() ?? ""} ` : "";
  const details = new Map<string, string>();
  for (const detail of (parts.shift() ?? "").split(",")) {
    const at = detail.indexOf("=");
    if (at > 0)
      details.set(
        decodeURIComponent(detail.slice(0, at)),
        decodeURIComponent(detail.slice(at + 1)),
      );
  }
  const message = parts.join(" ");
  if (options.raw) return `${time}${message}`;
  const name = await names.of(details);
  for (const key of Object.values(contextKeys)) details.delete(key);
  const more =
    options.details && details.size > 0
      ? `${[...details].map(([key, value]) => `${key}=${value}`).join(",")} `
      : "";
  return `${time}${name}    | ${more}${message}`;
}

/** `web.1.abcdefghijkl@host`, padded so that slots of different length line up; asked for once a task. */
class TaskNames {
  readonly #cli: Cli;
  readonly #options: ServiceLogOptions;
  readonly #names: NameResolver;
  readonly #known = new Map<string, string>();
  constructor(cli: Cli, options: ServiceLogOptions) {
    this.#cli = cli;
    this.#options = options;
    this.#names = new NameResolver(cli, options.noResolve);
  }
  async of(details: ReadonlyMap<string, string>): Promise<string> {
    const taskId = details.get(contextKeys.task) ?? "";
    const known = this.#known.get(taskId);
    if (known !== undefined) return known;
    const node = await this.#names.node(details.get(contextKeys.node) ?? "");
    const task = await this.#cli.engine().json<TaskJson>("GET", `/tasks/${taskId}`);
    const service = await this.#names.service(details.get(contextKeys.service) ?? "");
    const slot = task.Slot ? String(task.Slot) : "";
    const place = slot === "" ? (task.NodeID ?? "") : slot;
    let name = this.#options.noResolve ? taskId : `${service}.${place}`;
    if (!this.#options.noResolve && !this.#options.noTaskIds) {
      name += `.${this.#options.noTrunc ? taskId : shortId(taskId)}`;
    }
    const padding =
      slot === "" ? "" : " ".repeat(Math.max(0, this.#options.slotDigits - slot.length));
    const full = `${name}@${node}${padding}`;
    this.#known.set(taskId, full);
    return full;
  }
}
