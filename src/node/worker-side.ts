/** The worker of this node: an agent over the engine's containers and the kernel's networks, opened anew for each swarm. */
import type { Engine } from "../engine/engine.ts";
import type { NativeCore } from "../engine/native-core.ts";
import { hostFacts } from "../io/host-facts.ts";
import { openWorkerDb } from "../io/worker-db.ts";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import type { Network } from "../model/network.ts";
import type { NodeDescription } from "../model/node.ts";
import { type Agent, createAgent } from "../worker/agent.ts";
import { createEngineExecutor } from "../worker/engine-executor.ts";
import { createNetworkApply } from "../worker/network-apply.ts";
import type { AgentHandle, AgentOptions } from "./swarm-node.ts";

export interface WorkerSide {
  /** Opens the worker's database. Throws naming it when it is damaged. */
  openAgent(options: AgentOptions): Promise<AgentHandle>;
  /** Networks of the tasks of this node. */
  networks(): Promise<readonly Network[]>;
}

/** Nothing runs until the agent that openAgent() gives is started. */
export function createWorkerSide(parts: {
  readonly engine: Engine;
  readonly native: NativeCore;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly describe: (dataPathAddress: string) => Promise<NodeDescription>;
}): WorkerSide {
  const { engine, native, clock, random, log } = parts;
  let agent: Agent | null = null;
  return {
    networks: async () => [...(agent?.held.networks.values() ?? [])],
    async openAgent(options) {
      const db = await openWorkerDb(options.databaseDirectory);
      let registered: () => void = () => {};
      const connected = new Promise<void>((resolve) => {
        registered = resolve;
      });
      const opened = createAgent({
        nodeId: options.nodeId,
        clusterAddress: options.clusterAddress,
        managers: options.managers,
        connect: options.connect,
        executor: createEngineExecutor(engine),
        networks: createNetworkApply({
          native,
          clock,
          log,
          upstreams: async () => (await hostFacts.resolvConf()).nameservers,
        }),
        db,
        clock,
        random,
        log: log.child({ part: "agent" }),
        describe: () => parts.describe(options.dataPathAddress),
        onMembership: (membership) => options.onMembership({ kind: "membership", ...membership }),
        onRegistered: () => registered(),
        onGoodbye: (reason) => {
          if (reason === "removed" || reason === "unknown-node") options.onRemoved();
        },
      });
      const end = async (): Promise<void> => {
        if (agent === opened) agent = null;
        await db.close();
      };
      return {
        connected,
        async start() {
          agent = opened;
          await opened.start();
        },
        async stop() {
          await opened.stop();
          await end();
        },
        async leave() {
          await opened.leave();
          await opened.stop();
          await end();
        },
      };
    },
  };
}
