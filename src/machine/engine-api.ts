/** What the provisioner asks of a machine's Engine API; cli/machine-api.ts implements it over HTTP. */

export interface EngineSummary {
  readonly version: string;
  /** `-` when in no swarm. */
  readonly swarm: string;
}

/** `url` is the machine's: unix://PATH or tcp://ADDRESS:PORT. Throws ShoalError with the daemon's words. */
export interface EngineApi {
  /** Whether `GET /_ping` answers 200 within `timeoutMs`. Never throws. */
  ping(url: string, timeoutMs: number): Promise<boolean>;
  summary(url: string): Promise<EngineSummary>;
  /** Makes a swarm with this node as its first manager. */
  initSwarm(url: string, advertiseAddress: string): Promise<void>;
  joinTokens(url: string): Promise<{ readonly worker: string; readonly manager: string }>;
  joinSwarm(
    url: string,
    request: {
      readonly advertiseAddress: string;
      readonly remote: string;
      readonly token: string;
    },
  ): Promise<void>;
  /** Whether the node is in a swarm (or on its way). */
  inSwarm(url: string): Promise<boolean>;
  /** Loads an image archive from a file of this box. */
  loadImage(url: string, file: string): Promise<void>;
}
