/** Managers' transports over real websockets on the loopback device, with links that a test can cut, slow down and freeze. */
import { once } from "node:events";
import { connect, createServer as createTcpServer, type Server, type Socket } from "node:net";
import { WebSocket, WebSocketServer } from "ws";
import { type Log, silentLog } from "../../lib/log.ts";
import type { TransportWorld } from "../../raft/testing/transport-suite.ts";
import type { PeerId } from "../../raft/types.ts";
import { createRaftTransport, type RaftTransport, raftSocketOptions } from "../raft-transport.ts";
import type { RaftTransportLimits } from "../raft-transport-limits.ts";

/** How long until() waits. */
const untilMsMax = 10_000;

interface Manager {
  readonly transport: RaftTransport;
  readonly server: WebSocketServer;
  readonly proxy: Relay;
}

export class LoopbackManagers implements TransportWorld {
  readonly #limits: Partial<RaftTransportLimits>;
  readonly #log: Log;
  readonly #managers = new Map<PeerId, Manager>();

  constructor(limits: Partial<RaftTransportLimits> = {}, log: Log = silentLog) {
    this.#limits = limits;
    this.#log = log;
  }

  async open(
    id: PeerId,
    limits: Partial<RaftTransportLimits> = {},
    introduce = true,
  ): Promise<RaftTransport> {
    const server = new WebSocketServer({ port: 0, host: "127.0.0.1", ...raftSocketOptions });
    await once(server, "listening");
    const proxy = await Relay.to(portOf(server.address()));
    const all = { ...this.#limits, ...limits };
    const transport = createRaftTransport(id, dialLoopback, this.#log, all);
    server.on("connection", (socket) => transport.accept(socket));
    this.#managers.set(id, { transport, server, proxy });
    if (introduce) this.introduce();
    return transport;
  }

  /** Tells everybody where everybody is. */
  introduce(): void {
    for (const { transport } of this.#managers.values()) transport.setPeers(this.addresses());
  }

  /** Where each peer is reached. */
  addresses(): ReadonlyMap<PeerId, string> {
    return new Map(
      [...this.#managers].map(([id, { proxy }]) => [id, `127.0.0.1:${proxy.port}`] as const),
    );
  }

  /** The way to peer `id`, for those who dial it. */
  wayTo(id: PeerId): Relay {
    return this.#manager(id).proxy;
  }

  /** Websockets that the managers' servers hold open. */
  connections(): number {
    let open = 0;
    for (const { server } of this.#managers.values()) open += server.clients.size;
    return open;
  }

  async crash(id: PeerId): Promise<void> {
    const { transport, server, proxy } = this.#manager(id);
    this.#managers.delete(id);
    transport.close();
    for (const client of server.clients) client.terminate();
    await proxy.close();
    await new Promise((resolve) => server.close(resolve));
  }

  async until(holds: () => boolean, what: string): Promise<void> {
    const deadline = performance.now() + untilMsMax;
    while (!holds()) {
      if (performance.now() > deadline) throw new Error(`waited ${untilMsMax} ms for ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  async remove(): Promise<void> {
    for (const id of [...this.#managers.keys()]) await this.crash(id);
  }

  #manager(id: PeerId): Manager {
    const manager = this.#managers.get(id);
    if (manager === undefined) throw new Error(`no manager ${id} is up`);
    return manager;
  }
}

/** Opens a websocket as a manager does. */
export async function dialLoopback(address: string): Promise<WebSocket> {
  const socket = new WebSocket(`ws://${address}`, raftSocketOptions);
  await once(socket, "open");
  return socket;
}

/** A TCP relay in front of one port: it can freeze (half-open: nothing passes, nothing closes), cut what is open, and let only so many bytes pass a turn. */
export class Relay {
  readonly port: number;
  /** Bytes that went to the port behind. */
  passed = 0;
  readonly #server: Server;
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  #frozen = false;
  #refusing = false;

  private constructor(server: Server) {
    this.#server = server;
    this.port = portOf(server.address());
  }

  static async to(port: number): Promise<Relay> {
    const server = createTcpServer();
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const proxy = new Relay(server);
    server.on("connection", (client) => proxy.#relay(client, port));
    return proxy;
  }

  freeze(): void {
    this.#frozen = true;
    for (const pair of this.#pairs) for (const socket of pair) socket.pause();
  }

  thaw(): void {
    this.#frozen = false;
    for (const pair of this.#pairs) for (const socket of pair) socket.resume();
  }

  /** Closes every open connection; with `refuse`, new ones too until accept(). */
  cut(refuse = false): void {
    this.#refusing = refuse;
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
  }

  accept(): void {
    this.#refusing = false;
  }

  async close(): Promise<void> {
    this.cut(true);
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #relay(client: Socket, port: number): void {
    if (this.#refusing) {
      client.destroy();
      return;
    }
    const server = connect(port, "127.0.0.1");
    const pair = [client, server] as const;
    this.#pairs.add(pair);
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      from.setNoDelay(true);
      from.on("error", () => to.destroy());
      from.on("close", () => {
        to.destroy();
        this.#pairs.delete(pair);
      });
      from.on("data", (bytes) => {
        if (from === client) this.passed += bytes.length;
        if (!to.write(bytes)) {
          from.pause();
          to.once("drain", () => {
            if (!this.#frozen) from.resume();
          });
        }
      });
      if (this.#frozen) from.pause();
    }
  }
}

function portOf(address: unknown): number {
  if (typeof address !== "object" || address === null || !("port" in address)) {
    throw new Error("a listening server has a port");
  }
  return Number(address.port);
}
