/** The steps from the networks the kernel has to those that are wanted: in an order that never leaves a path to a wrong place. */
import type { NativeSandbox, NetworkOp } from "../wire/native.ts";
import { type NetworkState, sandboxPrefix, type WantedSandbox } from "./plan.ts";

/** Operations that make `want` of `have`; none when they are the same. Sandboxes that are not ours are left alone. */
export function diffNetworks(
  have: readonly NativeSandbox[],
  want: NetworkState,
): readonly NetworkOp[] {
  const ops: NetworkOp[] = [];
  const there = new Map(have.map((item) => [item.sandbox, item]));
  for (const item of have) {
    if (item.sandbox.startsWith(sandboxPrefix) && !want.has(item.sandbox)) {
      ops.push({ op: "sandbox-remove", sandbox: item.sandbox });
    }
  }
  for (const wanted of want.values()) {
    const known = there.get(wanted.sandbox);
    if (known !== undefined && !sameDevices(known, wanted)) {
      // A VXLAN device cannot change its number or its local address: made anew.
      if (known.vxlan !== null) ops.push({ op: "sandbox-remove", sandbox: wanted.sandbox });
      ops.push(...makeSandbox(wanted, known.vxlan !== null ? null : known));
    } else if (known === undefined) {
      ops.push(...makeSandbox(wanted, null));
    } else {
      ops.push(...changeSandbox(wanted, known));
    }
  }
  return ops;
}

/** What the kernel has once `want` is in force. */
export function asDumped(want: NetworkState): readonly NativeSandbox[] {
  return [...want.values()].map((item) => ({
    sandbox: item.sandbox,
    bridge: item.bridge,
    vxlan: item.vxlan,
    ports: item.ports.map((port) => port.port),
    fdb: [...item.fdb].map(([mac, remote]) => ({ mac, remote })),
    neighbours: [...item.neighbours].map(([address, mac]) => ({ address, mac })),
  }));
}

function sameDevices(have: NativeSandbox, want: WantedSandbox): boolean {
  const { bridge, vxlan } = have;
  return (
    bridge !== null &&
    vxlan !== null &&
    bridge.address === want.bridge.address &&
    bridge.mtu === want.bridge.mtu &&
    vxlan.vni === want.vxlan.vni &&
    vxlan.local === want.vxlan.local &&
    vxlan.port === want.vxlan.port &&
    vxlan.mtu === want.vxlan.mtu
  );
}

function makeSandbox(want: WantedSandbox, have: NativeSandbox | null): readonly NetworkOp[] {
  const { sandbox } = want;
  return [
    { op: "sandbox-add", sandbox },
    { op: "bridge-add", sandbox, ...want.bridge },
    { op: "vxlan-add", sandbox, ...want.vxlan },
    ...changeSandbox(want, have),
  ];
}

function changeSandbox(want: WantedSandbox, have: NativeSandbox | null): readonly NetworkOp[] {
  const { sandbox } = want;
  const ops: NetworkOp[] = [];
  const ports = new Set(have?.ports ?? []);
  const wantedPorts = new Set(want.ports.map((port) => port.port));
  for (const port of ports) {
    if (!wantedPorts.has(port)) ops.push({ op: "endpoint-remove", sandbox, port });
  }
  // Removals first: a stale entry for a MAC must be gone before the new one, or it would take it along.
  const fdb = new Map<string, string>();
  for (const { mac, remote } of have?.fdb ?? []) {
    if (want.fdb.get(mac) === remote) fdb.set(mac, remote);
    else ops.push({ op: "fdb-remove", sandbox, mac, remote });
  }
  const neighbours = new Map<string, string>();
  for (const { address, mac } of have?.neighbours ?? []) {
    if (want.neighbours.has(address)) neighbours.set(address, mac);
    else ops.push({ op: "neighbour-remove", sandbox, address });
  }
  for (const [mac, remote] of want.fdb) {
    if (fdb.get(mac) !== remote) ops.push({ op: "fdb-put", sandbox, mac, remote });
  }
  for (const [address, mac] of want.neighbours) {
    if (neighbours.get(address) !== mac) ops.push({ op: "neighbour-put", sandbox, address, mac });
  }
  for (const port of want.ports) {
    if (!ports.has(port.port)) ops.push({ op: "endpoint-add", sandbox, ...port });
  }
  return ops;
}
