// Goal: no service comes to use a network that is removed. Method: both decided on one view, committed one after the other.
import { expect, test } from "vitest";
import { createStore } from "../../store/store.ts";
import type { ActionGroup } from "../../store/types.ts";
import { createTestClock } from "../testing/clock.ts";
import { createTestProposer } from "../testing/proposer.ts";
import { createTestRandom } from "../testing/random.ts";
import { add, testCluster, testServiceSpec, testTaskSpec } from "../testing/rows.ts";
import { createNetwork, removeNetwork } from "./networks.ts";
import { createService, rollBackService, updateService } from "./services.ts";

function setUp() {
  const store = createStore();
  const clock = createTestClock();
  const proposer = createTestProposer(store, clock);
  const random = createTestRandom();
  proposer.commit([add("clusters", testCluster())]);
  const network = {
    name: "net",
    labels: {},
    driver: "overlay" as const,
    driverOptions: {},
    internal: false,
    attachable: false,
    ingress: false,
    subnet: null,
    gateway: null,
  };
  proposer.commit(createNetwork(store.view(), network, random).group);
  const using = testServiceSpec({
    task: testTaskSpec({ networks: [{ target: "net", aliases: [] }] }),
  });
  const service = () => {
    const [found] = store.view().table("services").all();
    if (found === undefined) throw new Error("no service");
    return found;
  };
  const decide: Readonly<Record<string, () => ActionGroup>> = {
    "a service that is created on it": () => createService(store.view(), using, random).group,
    "a service that is moved to it": () =>
      updateService(store.view(), "web", service().meta.version, using).group,
    "a service that is rolled back to it": () =>
      rollBackService(store.view(), "web", service().meta.version, clock.now()).group,
  };
  const prepare = (what: string): void => {
    if (what === "a service that is created on it") return;
    const first = what === "a service that is moved to it" ? testServiceSpec() : using;
    proposer.commit(createService(store.view(), first, random).group);
    if (what === "a service that is moved to it") return;
    const { version } = service().meta;
    proposer.commit(updateService(store.view(), "web", version, testServiceSpec()).group);
  };
  return { store, clock, decide, prepare };
}

test.each([
  "a service that is created on it",
  "a service that is moved to it",
  "a service that is rolled back to it",
])("of a network's removal and %s, only the first is done", (what) => {
  for (const removalFirst of [true, false]) {
    const t = setUp();
    t.prepare(what);
    const use = t.decide[what]?.() ?? [];
    const remove = removeNetwork(t.store.view(), "net").group;
    const groups = removalFirst ? [remove, use] : [use, remove];
    const results = groups.map((group) => {
      const body = { proposalId: "p", at: t.clock.now(), groups: [group] };
      return t.store.apply(t.store.view().index + 1, body).results[0]?.ok;
    });
    expect(results).toEqual([true, false]);
  }
});
