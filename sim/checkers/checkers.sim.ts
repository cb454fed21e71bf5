// Goal: the checkers have teeth. Method: tell each what must not happen.
import { expect, test } from "vitest";
import type { InstantMs } from "../../src/lib/clock.ts";
import { testServiceSpec, testTask } from "../../src/manager/testing/rows.ts";
import type { Task } from "../../src/model/task.ts";
import type { HardState, Message } from "../../src/raft/types.ts";
import { createStore } from "../../src/store/store.ts";
import type { Change, Committed } from "../../src/store/types.ts";
import { createDisk, type SimDisk } from "../disk.ts";
import { createRandom } from "../random.ts";
import { World } from "../world.ts";
import { RowChecker } from "./rows.ts";
import { SafetyChecker } from "./safety.ts";

interface Setting {
  readonly world: World;
  readonly safety: SafetyChecker;
  readonly rows: RowChecker;
  readonly disk: SimDisk;
}
function setUp(): Setting {
  const world = new World();
  const rows = new RowChecker(world);
  const safety = new SafetyChecker(world, rows);
  const disk = createDisk("d", world, createRandom(1), () => {});
  return { world, safety, rows, disk };
}
const heartbeat = (from: string, term: number): Message => ({
  kind: "heartbeat",
  from,
  to: "x",
  term,
  commit: 0,
  readId: null,
});
const committed = (index: number, ok = true, changes: readonly Change[] = []): Committed => ({
  index,
  proposalId: "p",
  results: ok ? [{ ok }] : [{ ok, reason: "stale", table: "tasks", id: "t" }],
  changes,
});
const body = (proposalId: string) => ({ proposalId, at: 0 as InstantMs, groups: [] });
const save = (hardState: HardState) => ({ hardState, entries: [], snapshot: null });
const entry = (text: string) => ({
  index: 1,
  term: 1,
  kind: "normal" as const,
  data: new TextEncoder().encode(text),
});
const task = (changed: Partial<Task>): Task => ({
  ...testTask("t", { id: "s", spec: testServiceSpec(), specVersion: 1 }),
  meta: { version: 1, createdAt: 0 as InstantMs, updatedAt: 0 as InstantMs },
  ...changed,
});
const taskChange = (before: Task | null, after: Task | null): Change => ({
  table: "tasks",
  before,
  after,
});
const inState = (state: Task["status"]["state"]): Task["status"] => ({ ...task({}).status, state });
const attached = (id: string): Task =>
  task({
    id,
    attachments: [{ networkId: "n", address: "10.0.0.2", prefixLength: 24, mac: "", aliases: [] }],
  });

test.each<[string, (setting: Setting) => void]>([
  [
    "two leaders",
    ({ safety }) => {
      safety.sent(heartbeat("a", 3));
      safety.sent(heartbeat("b", 3));
    },
  ],
  [
    "two votes",
    ({ safety, disk }) => {
      safety.saved(disk, save({ term: 2, vote: "a", commit: 0 }));
      safety.saved(disk, save({ term: 2, vote: "b", commit: 0 }));
    },
  ],
  [
    "went back",
    ({ safety, disk }) => {
      safety.saved(disk, save({ term: 2, vote: null, commit: 5 }));
      safety.saved(disk, save({ term: 2, vote: null, commit: 4 }));
    },
  ],
  [
    "two different entries",
    ({ safety, disk }) => {
      safety.saved(disk, { hardState: null, snapshot: null, entries: [entry("a")] });
      safety.saved(disk, { hardState: null, snapshot: null, entries: [entry("b")] });
    },
  ],
  [
    "another manager",
    ({ safety }) => {
      safety.applied("a", 1, body("p"), committed(1), createStore());
      safety.applied("b", 1, body("p"), committed(1, false), createStore());
    },
  ],
  [
    "is lost",
    ({ safety }) => {
      safety.acknowledge("p", 7);
      safety.acknowledgedAreThere();
    },
  ],
  [
    "no majority has on disk",
    ({ safety }) => {
      const empty = { outgoing: [], learners: [], learnersNext: [], autoLeave: false };
      safety.memberships = () => [{ ...empty, voters: ["a", "b", "c"] }];
      safety.applied("a", 1, body("p"), committed(1), createStore());
    },
  ],
  [
    "is desired running after shutdown",
    ({ rows }) => {
      const change = taskChange(task({ desired: "shutdown" }), task({ desired: "running" }));
      rows.committed(committed(2, true, [change]));
    },
  ],
  [
    "is starting after running",
    ({ rows }) => {
      const before = task({ status: inState("running") });
      const now = task({ status: inState("starting") });
      rows.committed(committed(2, true, [taskChange(before, now)]));
    },
  ],
  [
    "but its process runs",
    ({ rows }) => {
      rows.runsOn = () => "host";
      const before = task({ status: inState("running") });
      const now = task({ status: inState("shutdown") });
      rows.committed(committed(2, true, [taskChange(before, now)]));
    },
  ],
  [
    "is given 10.0.0.2, which task a has",
    ({ rows }) => {
      const changes = [taskChange(null, attached("a")), taskChange(null, attached("b"))];
      rows.committed(committed(2, true, changes));
    },
  ],
])("a checker says: %s", async (words, happen) => {
  const setting = setUp();
  happen(setting);
  await expect(setting.world.run(setting.world.after(1))).rejects.toThrow(words);
});
