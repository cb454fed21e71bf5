/** What the provisioner asks of a machine, over the Engine API. */

import { Writable } from "node:stream";
import type { EngineApi, EngineSummary } from "../machine/engine-api.ts";
import { EngineClient } from "./client.ts";
import { loadArchive, openFile } from "./commands/image.ts";
import type { InfoJson, SwarmJson } from "./engine-types.ts";
import { resolveEndpoint } from "./host.ts";

/** Of the whole swarm, as design section 7. */
const listenAddress = "0.0.0.0:2377";

export class HttpEngineApi implements EngineApi {
  async ping(url: string, timeoutMs: number): Promise<boolean> {
    try {
      return await this.#with(url, (engine) => engine.ping(AbortSignal.timeout(timeoutMs)));
    } catch {
      // Not there yet, or not answering: that is what was asked.
      return false;
    }
  }
  async summary(url: string): Promise<EngineSummary> {
    return await this.#with(url, async (engine) => {
      const { Version } = await engine.json<{ Version?: string }>("GET", "/version");
      const { Swarm: swarm } = await engine.json<InfoJson>("GET", "/info");
      const state = swarm?.LocalNodeState ?? "inactive";
      const role = swarm?.ControlAvailable === true ? "manager" : "worker";
      return {
        version: Version === undefined ? "" : `v${Version}`,
        swarm: state === "active" ? role : state === "inactive" ? "-" : state,
      };
    });
  }
  async initSwarm(url: string, advertiseAddress: string): Promise<void> {
    await this.#with(url, (engine) =>
      engine.json("POST", "/swarm/init", {
        body: {
          ListenAddr: listenAddress,
          AdvertiseAddr: advertiseAddress,
          DataPathAddr: "",
          DataPathPort: 0,
          ForceNewCluster: false,
          Spec: {
            Labels: null,
            Orchestration: {},
            Raft: { ElectionTick: 0, HeartbeatTick: 0 },
            Dispatcher: {},
            CAConfig: {},
            TaskDefaults: {},
            EncryptionConfig: { AutoLockManagers: false },
          },
          AutoLockManagers: false,
          Availability: "",
          DefaultAddrPool: [],
          SubnetSize: 24,
        },
      }),
    );
  }
  async joinTokens(url: string): Promise<{ readonly worker: string; readonly manager: string }> {
    const { JoinTokens } = await this.#with(url, (engine) =>
      engine.json<SwarmJson>("GET", "/swarm"),
    );
    return { worker: JoinTokens.Worker, manager: JoinTokens.Manager };
  }
  async joinSwarm(
    url: string,
    request: { readonly advertiseAddress: string; readonly remote: string; readonly token: string },
  ): Promise<void> {
    await this.#with(url, (engine) =>
      engine.json("POST", "/swarm/join", {
        body: {
          ListenAddr: listenAddress,
          AdvertiseAddr: request.advertiseAddress,
          DataPathAddr: "",
          RemoteAddrs: [request.remote],
          JoinToken: request.token,
          Availability: "",
        },
      }),
    );
  }
  async inSwarm(url: string): Promise<boolean> {
    const { Swarm: swarm } = await this.#with(url, (engine) =>
      engine.json<InfoJson>("GET", "/info"),
    );
    return swarm?.LocalNodeState === "active" || swarm?.LocalNodeState === "pending";
  }
  async loadImage(url: string, file: string): Promise<void> {
    const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
    await this.#with(url, (engine) =>
      loadArchive({ engine: () => engine, out: nowhere }, openFile(file), {
        quiet: true,
        platform: null,
      }),
    );
  }

  async #with<T>(url: string, work: (engine: EngineClient) => Promise<T>): Promise<T> {
    const options = {
      host: url,
      tls: false,
      tlsVerify: false,
      caFile: null,
      certFile: null,
      keyFile: null,
    };
    const engine = new EngineClient(resolveEndpoint(options, {}));
    try {
      return await work(engine);
    } finally {
      engine.close();
    }
  }
}
