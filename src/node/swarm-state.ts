/** What a node remembers of its swarm over a restart: who it is there, and whom to ask. Files under DATA_ROOT/swarm. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { certifies, identityOf, isRoot } from "../io/certificates.ts";
import { readChecked, writeChecked } from "../io/checked-json.ts";
import type { TlsIdentity } from "../io/cluster-listener.ts";
import { removeDurably, writeFileAtomic } from "../io/files.ts";
import { type NodeKeyFile, nodeKeyFile } from "../io/node-key-file.ts";
import { failure, messageOf, type ShoalError } from "../lib/errors.ts";
import type { NodeRole } from "../model/node.ts";

export interface SwarmState {
  readonly version: 1;
  readonly nodeId: string;
  readonly clusterId: string;
  readonly role: NodeRole;
  readonly raftId: string | null;
  /** The log of `raftId` was made, and this manager may have voted: without it, it has lost what others rely on. */
  readonly raftBegun: boolean;
  /** `host:port` of the managers, as last heard. */
  readonly managers: readonly string[];
  readonly listenHost: string;
  readonly listenPort: number;
  /** `host:port` under which others reach this node. */
  readonly clusterAddress: string;
  /** IPv4 for VXLAN frames. */
  readonly dataPathAddress: string;
  readonly dataPathPort: number;
}
export interface SwarmFiles {
  load(): Promise<{ readonly state: SwarmState; readonly identity: TlsIdentity } | null>;
  saveState(state: SwarmState): Promise<void>;
  saveIdentity(identity: TlsIdentity): Promise<void>;
  /** Forgets the swarm: certificates, Raft log, worker database. */
  erase(): Promise<void>;
  /** The log of one Raft id: another id never reads it. */
  raftDirectory(raftId: string): string;
  /** Removes the logs of Raft ids that this node no longer has; null: all. */
  removeOtherLogs(raftId: string | null): Promise<void>;
  readonly workerDirectory: string;
  /** This node's key and certificate, and the data keys of its Raft log. */
  readonly keyFile: NodeKeyFile;
}

/** The swarm's files below `dataRoot`. */
export function swarmFiles(dataRoot: string): SwarmFiles {
  const root = join(dataRoot, "swarm");
  const statePath = join(root, "state.json");
  const certificates = join(root, "certificates");
  const paths = {
    ca: join(certificates, "swarm-root-ca.crt"),
    // Key and certificate in one file: a crash leaves a pair that belongs together.
    node: join(certificates, "swarm-node.pem"),
  };
  const keyFile = nodeKeyFile(paths.node);
  return {
    keyFile,
    raftDirectory: (raftId) => join(root, `raft-${raftId}`),
    async removeOtherLogs(raftId) {
      // First the keys: what of the files is not overwritten on the device is unreadable then.
      if (raftId === null) await keyFile.saveDataKeys(null);
      for (const name of await readdir(root).catch(() => [] as string[])) {
        if (name.startsWith("raft-") && name !== `raft-${raftId}`) {
          await removeDurably(join(root, name));
        }
      }
    },
    workerDirectory: join(root, "worker"),
    async load() {
      const state = await readChecked(statePath);
      if (state === null) return null;
      checkState(state, statePath);
      const [caPem, node] = await Promise.all([read(paths.ca), read(paths.node)]);
      const identity = { caPem, ...splitPem(node, paths.node) };
      checkIdentity(identity, state, paths);
      return { state, identity };
    },
    saveState: (state) => writeChecked(statePath, state),
    async saveIdentity(identity) {
      await writeFileAtomic(paths.ca, identity.caPem, 0o644);
      await keyFile.saveIdentity(identity.keyPem, identity.certificatePem);
    },
    async erase() {
      // The state goes first: without it the rest means nothing.
      await removeDurably(statePath);
      await removeDurably(root);
    },
  };
}

function splitPem(
  text: string,
  path: string,
): { readonly keyPem: string; readonly certificatePem: string } {
  const block = (kind: string): string => {
    const found = new RegExp(`-----BEGIN ${kind}-----[^-]+-----END ${kind}-----\\n?`).exec(
      text,
    )?.[0];
    if (found !== undefined) return found;
    throw unusable(path, `it holds no ${kind.toLowerCase()}`);
  };
  return { keyPem: block("PRIVATE KEY"), certificatePem: block("CERTIFICATE") };
}

async function read(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw unusable(path, messageOf(error), error);
  }
}

/** A flipped bit or a file of another node is found here, not by the handshake of some peer much later. */
function checkIdentity(
  identity: TlsIdentity,
  state: SwarmState,
  paths: { readonly ca: string; readonly node: string },
): void {
  if (!isRoot(identity.caPem)) throw unusable(paths.ca, "it is damaged, or no root certificate");
  const { certificatePem, keyPem, caPem } = identity;
  if (!certifies(caPem, certificatePem, keyPem)) {
    throw unusable(
      paths.node,
      `its key or certificate is damaged, or not of the root in ${paths.ca}`,
    );
  }
  const holder = identityOf(certificatePem);
  if (holder?.nodeId !== state.nodeId || holder.clusterId !== state.clusterId) {
    throw unusable(paths.node, `it is the certificate of another node than ${state.nodeId}`);
  }
}

/** Why a certificate's file cannot be used, and the two ways out. */
function unusable(path: string, why: string, cause?: unknown): ShoalError {
  return failure(
    "internal",
    `reading ${path}: ${why}; this node cannot prove who it is in its swarm. Restore the file from a backup, or remove ${join(path, "../..")} and join again as a new node (then remove the old one with \`docker node rm\`)`,
    cause,
  );
}

function checkState(value: unknown, path: string): asserts value is SwarmState {
  const state = value as Partial<SwarmState> | null;
  const texts = [state?.nodeId, state?.clusterId, state?.clusterAddress, state?.dataPathAddress];
  if (
    state?.version !== 1 ||
    !texts.every((text) => typeof text === "string") ||
    (state.role !== "manager" && state.role !== "worker") ||
    !Array.isArray(state.managers)
  ) {
    throw failure(
      "internal",
      `reading ${path}: it is damaged or of another version; restore it from a backup, or remove ${path} to leave the swarm (the node must then be removed with \`docker node rm\` and join again)`,
    );
  }
}
