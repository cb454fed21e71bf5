/** The numbers of new networks, by a table of clusters and wishes. */
import { expect, test } from "vitest";
import { ShoalError } from "../../lib/errors.ts";
import type { Network, NetworkSpec } from "../../model/network.ts";
import type { Node } from "../../model/node.ts";
import { aCluster, aDescription, aNetwork, aNode, instant } from "../../model/testing/rows.ts";
import { createStore } from "../../store/store.ts";
import type { Action, View } from "../../store/types.ts";
import { planNetwork } from "./plan-network.ts";

const vniOption = "com.docker.network.driver.overlay.vxlanid_list";

function viewOf(
  networks: readonly Network[],
  nodes: readonly Node[],
  pools: readonly string[],
): View {
  const store = createStore();
  const group: Action[] = [
    { table: "clusters", kind: "put", row: aCluster({ addressPools: pools }), expect: null },
    ...networks.map((row): Action => ({ table: "networks", kind: "put", row, expect: null })),
    ...nodes.map((row): Action => ({ table: "nodes", kind: "put", row, expect: null })),
  ];
  store.apply(1, { proposalId: "p", at: instant(0), groups: [group] });
  return store.view();
}
function wish(over: Partial<NetworkSpec>): NetworkSpec {
  return { ...aNetwork("new").spec, ...over };
}
function planned(view: View, over: Partial<NetworkSpec>): string {
  const plan = planNetwork(view, wish(over));
  if (plan instanceof ShoalError) return `${plan.code}: ${plan.message}`;
  return `${plan.vni} ${plan.subnet} ${plan.gateway}`;
}

const busy = viewOf(
  [
    aNetwork("web", { vni: 4096, subnet: "10.0.0.0/24" }),
    aNetwork("db", { vni: 4098, subnet: "10.0.2.0/24" }),
  ],
  [
    aNode("n1", {
      description: aDescription({
        hostname: "n1",
        routes: ["0.0.0.0/0", "10.0.1.0/25", "172.16.0.0/12"],
        dataPathAddress: "10.0.3.77",
      }),
    }),
    aNode("n2", { description: null }),
  ],
  ["10.0.0.0/16"],
);

test.each<[string, Partial<NetworkSpec>, string]>([
  ["the lowest of all that is free", {}, "4097 10.0.4.0/24 10.0.4.1"],
  ["a wished subnet", { subnet: "192.168.7.0/28" }, "4097 192.168.7.0/28 192.168.7.1"],
  [
    "a wished gateway",
    { subnet: "192.168.7.0/28", gateway: "192.168.7.14" },
    "4097 192.168.7.0/28 192.168.7.14",
  ],
  ["the widest subnet", { subnet: "11.0.0.0/8" }, "4097 11.0.0.0/8 11.0.0.1"],
  ["the smallest subnet", { subnet: "11.0.0.8/29" }, "4097 11.0.0.8/29 11.0.0.9"],
  ["a wished VNI", { driverOptions: { [vniOption]: "5000" } }, "5000 10.0.4.0/24 10.0.4.1"],
])("a network gets %s", (_name, over, expected) => {
  expect(planned(busy, over)).toBe(expected);
});

test.each<[string, Partial<NetworkSpec>, string]>([
  [
    "no block",
    { subnet: "10.0.9" },
    "invalid: network new: invalid subnet 10.0.9: it is no IPv4 block",
  ],
  [
    "IPv6",
    { subnet: "fd00::/64" },
    "invalid: network new: invalid subnet fd00::/64: it is no IPv4 block",
  ],
  [
    "host bits",
    { subnet: "10.9.1.5/24" },
    "invalid: network new: invalid subnet 10.9.1.5/24: it should be 10.9.1.0/24",
  ],
  [
    "too wide",
    { subnet: "8.0.0.0/7" },
    "invalid: network new: invalid subnet 8.0.0.0/7: its prefix must be from /8 to /29",
  ],
  [
    "too small",
    { subnet: "11.0.0.0/30" },
    "invalid: network new: invalid subnet 11.0.0.0/30: its prefix must be",
  ],
  [
    "another network's",
    { subnet: "10.0.2.128/25" },
    "forbidden: network new: invalid pool request: Pool overlaps with other one on this address space: 10.0.2.128/25 overlaps 10.0.2.0/24 of network db",
  ],
  [
    "over a node's route",
    { subnet: "172.20.0.0/16" },
    "forbidden: network new: invalid pool request: Pool overlaps with other one on this address space: 172.20.0.0/16 overlaps 172.16.0.0/12 of a route of node n1",
  ],
  [
    "over a node's address",
    { subnet: "10.0.3.0/24" },
    "10.0.3.0/24 overlaps 10.0.3.77/32 of the address of node n1",
  ],
  [
    "a gateway elsewhere",
    { subnet: "11.0.0.0/24", gateway: "11.0.1.1" },
    "invalid: network new: invalid gateway 11.0.1.1: it is no host address of 11.0.0.0/24; use one such as 11.0.0.1",
  ],
  [
    "the broadcast address as gateway",
    { subnet: "11.0.0.0/24", gateway: "11.0.0.255" },
    "invalid gateway 11.0.0.255",
  ],
  [
    "a VNI in use",
    { driverOptions: { [vniOption]: "4098" } },
    "conflict: network new: VNI 4098 is in use by network db",
  ],
  [
    "a VNI too low",
    { driverOptions: { [vniOption]: "4095" } },
    'invalid: network new: VNI "4095" is not one number from 4096 to 16777215',
  ],
  [
    "several VNIs",
    { driverOptions: { [vniOption]: "5000,5001" } },
    'invalid: network new: VNI "5000,5001" is not one number',
  ],
])("%s is refused", (_name, over, expected) => {
  expect(planned(busy, over)).toContain(expected);
});

test("pools that are used up are named", () => {
  const view = viewOf([aNetwork("web", { subnet: "10.0.0.0/24" })], [], ["10.0.0.0/24"]);
  expect(planned(view, {})).toBe(
    "unavailable: network new: no free /24 subnet is left in the address pools 10.0.0.0/24; remove a network, or ask for a subnet elsewhere with --subnet",
  );
});
