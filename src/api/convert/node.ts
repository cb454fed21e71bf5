/** Nodes from docker's JSON and back. */
import { failure } from "../../lib/errors.ts";
import type { Cluster } from "../../model/cluster.ts";
import type { Availability, Node, NodeDescription, NodeRole, NodeSpec } from "../../model/node.ts";
import type { ManagerStatus } from "../backend.ts";
import { writeTlsInfo } from "./certificate.ts";
import { Fields } from "./fields.ts";
import { withoutUnset } from "./set-fields.ts";
import { writeMeta } from "./stored.ts";

/** What every node of ours can do, in the words in which docker lists its plugins. */
const plugins = [
  { Type: "Log", Name: "json-file" },
  { Type: "Network", Name: "host" },
  { Type: "Network", Name: "null" },
  { Type: "Network", Name: "overlay" },
];

/** Reads the body of `node update`. */
export function readNodeSpec(body: unknown): NodeSpec {
  const fields = Fields.root(body, "node update", "NodeSpec");
  const spec: NodeSpec = {
    name: fields.text("Name"),
    labels: fields.textMap("Labels"),
    role: readRole(fields.text("Role")),
    availability: readAvailability(fields.text("Availability")),
  };
  fields.done();
  return spec;
}

/** A word of the API as the model's availability. Throws ShoalError("invalid"). */
export function readAvailability(text: string): Availability {
  const word = text.toLowerCase();
  if (word === "active" || word === "pause" || word === "drain") return word;
  throw failure("invalid", `invalid Availability: "${text}"`);
}

function readRole(text: string): NodeRole {
  const word = text.toLowerCase();
  if (word === "worker" || word === "manager") return word;
  throw failure("invalid", `invalid Role: "${text}"`);
}

/** A node; `manager` for one that is a member of the Raft cluster. */
export function writeNode(
  node: Node,
  manager: ManagerStatus | undefined,
  cluster: Cluster | null,
): object {
  return {
    ...writeMeta(node),
    Spec: {
      ...withoutUnset({ Name: node.spec.name }),
      Labels: node.spec.labels,
      Role: node.spec.role,
      Availability: node.spec.availability,
    },
    Description: writeDescription(node.description, cluster),
    Status: {
      State: node.state,
      ...withoutUnset({ Message: node.stateMessage, Addr: node.address }),
    },
    ...(manager !== undefined && {
      ManagerStatus: {
        ...withoutUnset({ Leader: manager.leader }),
        Reachability: manager.reachability,
        Addr: manager.address,
      },
    }),
  };
}

function writeDescription(description: NodeDescription | null, cluster: Cluster | null): object {
  const tls = cluster === null ? {} : writeTlsInfo(cluster.rootCa.certificatePem);
  if (description === null) return { Platform: {}, Resources: {}, Engine: {}, TLSInfo: tls };
  return {
    Hostname: description.hostname,
    Platform: { Architecture: description.architecture, OS: description.os },
    Resources: {
      NanoCPUs: description.resources.nanoCpus,
      MemoryBytes: description.resources.memoryBytes,
    },
    Engine: {
      EngineVersion: description.engineVersion,
      ...withoutUnset({ Labels: description.engineLabels }),
      Plugins: plugins,
    },
    TLSInfo: tls,
  };
}
