/** Networks from docker's JSON and back. */
import { failure } from "../../lib/errors.ts";
import type { Container } from "../../model/container.ts";
import type { Network, NetworkSpec } from "../../model/network.ts";
import type { Node } from "../../model/node.ts";
import { type Task, taskName } from "../../model/task.ts";
import type { LocalNetwork } from "../backend.ts";
import { Fields } from "./fields.ts";
import { timeText } from "./time.ts";

const vniOption = "com.docker.network.driver.overlay.vxlanid_list";
const mtuOption = "com.docker.network.driver.mtu";
/** Drivers that docker has and we do not, yet. */
const otherDrivers = ["bridge", "host", "null", "none", "macvlan", "ipvlan"];

/** Reads the body of `network create`. Throws ShoalError("invalid") on a wrong shape, ("not-implemented") on an option that does not exist yet. */
export function readNetworkSpec(body: unknown): NetworkSpec {
  const fields = Fields.root(body, "network create", "CreateRequest");
  fields.ignore("CheckDuplicate");
  readDriver(fields);
  const scope = fields.text("Scope");
  if (scope !== "" && scope !== "swarm") {
    throw fields.unsupported(`scope ${scope} is not supported for overlay networks (swarm is)`);
  }
  if (fields.flagOrNull("EnableIPv4") === false) {
    throw fields.unsupported("networks without IPv4 are not supported yet");
  }
  fields.refuse("EnableIPv6", "IPv6 networks");
  fields.refuse("Ingress", "further ingress networks");
  fields.refuse("ConfigOnly", "config-only networks");
  fields.refuse("ConfigFrom", "networks from a config-only network");
  const spec: NetworkSpec = {
    name: fields.text("Name"),
    labels: fields.textMap("Labels"),
    driver: "overlay",
    driverOptions: readOptions(fields),
    internal: fields.flag("Internal"),
    attachable: fields.flag("Attachable"),
    ingress: false,
    ...readIpam(fields),
  };
  fields.done();
  return spec;
}

function readDriver(fields: Fields): void {
  // Docker's default is the bridge driver.
  const driver = fields.text("Driver") || "bridge";
  if (driver === "overlay") return;
  if (otherDrivers.includes(driver)) {
    throw fields.unsupported(
      `networks of driver ${driver} are not supported yet; use \`--driver overlay\``,
    );
  }
  throw failure("not-found", `plugin "${driver}" not found`);
}

function readOptions(fields: Fields): NetworkSpec["driverOptions"] {
  const options = fields.textMap("Options");
  for (const name of Object.keys(options)) {
    if (name !== mtuOption)
      throw fields.unsupported(`the driver option ${name} is not supported yet`);
  }
  return options;
}

function readIpam(fields: Fields): Pick<NetworkSpec, "subnet" | "gateway"> {
  const none = { subnet: null, gateway: null };
  const ipam = fields.object("IPAM");
  if (ipam === null) return none;
  const driver = ipam.text("Driver");
  if (driver !== "" && driver !== "default") {
    throw ipam.unsupported(`the IPAM driver ${driver} is not supported yet`);
  }
  ipam.refuse("Options", "IPAM options");
  const pools = ipam.objects("Config").map((pool) => {
    pool.refuse("IPRange", "address ranges within a subnet (--ip-range)");
    pool.refuse("AuxiliaryAddresses", "auxiliary addresses (--aux-address)");
    const read = { subnet: pool.textOrNull("Subnet"), gateway: pool.textOrNull("Gateway") };
    pool.done();
    return read;
  });
  ipam.done();
  if (pools.length > 1)
    throw ipam.unsupported("several subnets in one network are not supported yet");
  const pool = pools[0] ?? none;
  if (pool.gateway !== null && pool.subnet === null) {
    throw failure(
      "invalid",
      "invalid network config:\nmissing subnet: a gateway needs the subnet that it lies in",
    );
  }
  return pool;
}

/** What an inspection adds to a listed network. */
export interface NetworkDetail {
  /** Containers of this node; those attached to the network are shown. */
  readonly containers: readonly Container[];
  /** With `verbose`: what the whole swarm runs on it. */
  readonly verbose: { readonly tasks: readonly Task[]; readonly nodes: readonly Node[] } | null;
}

/** A swarm network. */
export function writeNetwork(network: Network, detail: NetworkDetail | null): object {
  const { spec } = network;
  return {
    Name: spec.name,
    Id: network.id,
    Created: timeText(network.meta.createdAt),
    Scope: "swarm",
    Driver: spec.driver,
    EnableIPv4: true,
    EnableIPv6: false,
    IPAM: {
      Driver: "default",
      Options: {},
      Config: [{ Subnet: network.subnet, Gateway: network.gateway }],
    },
    Internal: spec.internal,
    Attachable: spec.attachable,
    Ingress: spec.ingress,
    ConfigFrom: { Network: "" },
    ConfigOnly: false,
    Containers: detail === null ? {} : containersOn(network.id, detail.containers),
    Options: { ...spec.driverOptions, [vniOption]: String(network.vni) },
    Labels: spec.labels,
    ...(detail?.verbose && { Services: servicesOn(network.id, detail.verbose) }),
  };
}

/** A network of this node alone. */
export function writeLocalNetwork(network: LocalNetwork, detail: NetworkDetail | null): object {
  return {
    Name: network.name,
    Id: network.id,
    Created: timeText(network.createdAtMs as Parameters<typeof timeText>[0]),
    Scope: "local",
    Driver: network.driver,
    EnableIPv4: true,
    EnableIPv6: false,
    IPAM: { Driver: "default", Options: {}, Config: [] },
    Internal: false,
    Attachable: false,
    Ingress: false,
    ConfigFrom: { Network: "" },
    ConfigOnly: false,
    Containers: detail === null ? {} : containersOn(network.id, detail.containers),
    Options: {},
    Labels: {},
  };
}

/** A network as a task's JSON carries it. */
export function writeAttachedNetwork(network: Network): object {
  const { spec } = network;
  return {
    ID: network.id,
    Version: { Index: network.meta.version },
    CreatedAt: timeText(network.meta.createdAt),
    UpdatedAt: timeText(network.meta.updatedAt),
    Spec: {
      Name: spec.name,
      Labels: spec.labels,
      DriverConfiguration: { Name: spec.driver },
      ...(spec.ingress && { Ingress: true }),
      ...(spec.internal && { Internal: true }),
      ...(spec.attachable && { Attachable: true }),
      IPAMOptions: { Driver: {} },
      Scope: "swarm",
    },
    DriverState: { Name: spec.driver, Options: { [vniOption]: String(network.vni) } },
    IPAMOptions: {
      Driver: { Name: "default" },
      Configs: [{ Subnet: network.subnet, Gateway: network.gateway }],
    },
  };
}

/** True for a network of the swarm. */
export function isSwarmNetwork(network: Network | LocalNetwork): network is Network {
  return "spec" in network;
}

function containersOn(networkId: string, containers: readonly Container[]): Record<string, object> {
  const found: Record<string, object> = {};
  for (const container of containers) {
    if (container.state !== "running") continue;
    for (const endpoint of container.networks) {
      if (endpoint.networkId !== networkId) continue;
      found[container.id] = {
        Name: container.name,
        EndpointID: container.id,
        MacAddress: endpoint.mac,
        IPv4Address: `${endpoint.address}/${endpoint.prefixLength}`,
        IPv6Address: "",
      };
    }
  }
  return found;
}

function servicesOn(
  networkId: string,
  swarm: { readonly tasks: readonly Task[]; readonly nodes: readonly Node[] },
): Record<string, object> {
  const addressOf = new Map(swarm.nodes.map((node) => [node.id, node.address]));
  const services: Record<string, { VIP: string; Ports: []; LocalLBIndex: 0; Tasks: object[] }> = {};
  for (const task of swarm.tasks) {
    if (task.status.state !== "running") continue;
    for (const attachment of task.attachments) {
      if (attachment.networkId !== networkId) continue;
      services[task.serviceName] ??= { VIP: "", Ports: [], LocalLBIndex: 0, Tasks: [] };
      services[task.serviceName]?.Tasks.push({
        Name: taskName(task),
        EndpointID: "",
        EndpointIP: attachment.address,
        Info: { "Host IP": addressOf.get(task.nodeId ?? "") ?? "" },
      });
    }
  }
  return services;
}
