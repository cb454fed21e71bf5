/**
 * One member of the key-value cluster that script/bench raft measures: production core, driver, log and transport under
 * a Map. Its clients' frames are those of load/shoal.go. Stopped by SIGTERM.
 */
import { createServer } from "node:http";
import { parseArgs } from "node:util";
import { pack, unpack } from "msgpackr";
import { WebSocket, WebSocketServer } from "ws";
import { createLog } from "../../src/io/pino-log.ts";
import { openRaftLog } from "../../src/io/raft-log.ts";
import { createRaftTransport, raftSocketOptions } from "../../src/io/raft-transport.ts";
import { systemClock } from "../../src/io/system-clock.ts";
import { systemRandom } from "../../src/io/system-random.ts";
import { present } from "../../src/lib/assert.ts";
import {
  electionTicks,
  heartbeatTicks,
  holdBackEntriesMax,
  tickMs,
} from "../../src/manager/limits.ts";
import { createRaftDriver } from "../../src/manager/raft-driver.ts";
import { snapshotDue } from "../../src/manager/snapshot-due.ts";
import { createRaft } from "../../src/raft/core.ts";
import { RAFT_DEFAULTS } from "../../src/raft/limits.ts";
import type { PeerId, SavedState } from "../../src/raft/types.ts";
import { KeyValueMachine, reservedBytes } from "./machine.ts";

const opPut = 1;
const opGet = 2;
const statusDone = 0;
const statusRefused = 1;
/** Writes that one member has under way for its clients. One more is refused. */
const writesMax = 16_384;
/** Bytes of one frame of a client. */
const frameBytesMax = 64 * 1024 * 1024;

const { values } = parseArgs({
  options: {
    id: { type: "string" },
    dir: { type: "string" },
    raft: { type: "string" },
    client: { type: "string" },
    /** `a=host:port,b=host:port`: every member, this one too. */
    peers: { type: "string" },
    "snapshot-count": { type: "string", default: "10000" },
    "snapshot-keep": { type: "string", default: "500" },
  },
});
const id: PeerId = present(values.id, "--id");
const addresses = new Map<PeerId, string>(
  present(values.peers, "--peers")
    .split(",")
    .map((peer) => [peer.slice(0, peer.indexOf("=")), peer.slice(peer.indexOf("=") + 1)]),
);
const snapshotCount = Number(values["snapshot-count"]);
const snapshotKeep = Number(values["snapshot-keep"]);

interface Client {
  readonly socket: WebSocket;
  /** Flat, as in the frame: id, status, value. */
  answers: unknown[];
}
interface Asked {
  readonly client: Client;
  readonly id: number;
}

const log = createLog("warn");
const storage = await openRaftLog({ directory: present(values.dir, "--dir"), log });
const transport = createRaftTransport(id, dial, log);
const saved = await begun();
const core = createRaft(
  {
    ...RAFT_DEFAULTS,
    id,
    electionTicks,
    heartbeatTicks,
    holdBackEntriesMax,
    asyncStorageWrites: true,
    random: systemRandom,
  },
  saved,
);
const machine = new KeyValueMachine();
const writes = new Map<number, Asked>();
const reads = new Map<number, (Asked & { readonly key: string })[]>();
const answering = new Set<Client>();
/** Says which of the entries that are applied were proposed here, in this life. */
const ownTag = systemRandom.below(2 ** 32);
let nextWrite = 0;
let nextRead = systemRandom.below(2 ** 40);
let openRead: (Asked & { readonly key: string })[] | null = null;
let leader: PeerId | null = null;
let term = 0;
let termChanges = 0;
let appliedTerm = saved.snapshot?.term ?? 0;
let snapshotIndex = saved.snapshot?.index ?? 0;
if (saved.snapshot !== null) machine.load(saved.snapshot.data);

const driver = createRaftDriver({
  core,
  storage,
  transport,
  clock: systemClock,
  tickMs,
  machine: {
    apply(entries) {
      for (const entry of entries) {
        appliedTerm = entry.term;
        if (entry.kind !== "normal") continue;
        const number = machine.apply(entry.data, ownTag);
        if (number === null) continue;
        const asked = writes.get(number);
        if (asked === undefined) continue;
        writes.delete(number);
        answer(asked, statusDone, null);
      }
    },
    install(snapshot) {
      machine.load(snapshot.data);
      appliedTerm = snapshot.term;
      snapshotIndex = snapshot.index;
    },
    reads(readIds) {
      for (const readId of readIds) {
        for (const asked of reads.get(readId) ?? []) {
          answer(asked, statusDone, machine.get(asked.key));
        }
        reads.delete(readId);
      }
    },
    turned,
  },
  endOfTurn: setImmediate,
  onFatal(error) {
    process.stderr.write(`raft bench server ${id}: ${error.message}\n`);
    process.exit(1);
  },
});

/** A founder's state: all members are voters from the start. */
async function begun(): Promise<SavedState> {
  const loaded = await storage.load();
  if (loaded.hardState.term > 0) return loaded;
  const membership = {
    voters: [...addresses.keys()].sort(),
    outgoing: [],
    learners: [],
    learnersNext: [],
    autoLeave: false,
  };
  const founded: SavedState = {
    hardState: { term: 1, vote: null, commit: 1 },
    snapshot: { index: 1, term: 1, membership, data: new Uint8Array(0) },
    entries: [],
  };
  await storage.save(founded);
  return founded;
}

function dial(address: string): Promise<WebSocket> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws://${address}/`, raftSocketOptions);
    socket.once("open", () => resolve(socket));
    socket.once("error", reject);
  });
}

function answer({ client, id: request }: Asked, status: number, value: Buffer | null): void {
  client.answers.push(request, status, value);
  answering.add(client);
}

function turned(): void {
  openRead = null;
  const status = core.status();
  if (status.term !== term) {
    term = status.term;
    termChanges += 1;
  }
  if (status.leader !== leader) {
    leader = status.leader;
    // What a leader before had in hand may be lost: its askers look for themselves.
    for (const asked of writes.values()) answer(asked, statusRefused, null);
    writes.clear();
    for (const round of reads.values())
      for (const asked of round) answer(asked, statusRefused, null);
    reads.clear();
  }
  const { voters } = status.membership;
  if (!driver.compacting && snapshotDue(driver.applied, snapshotIndex, snapshotCount, id, voters)) {
    snapshotIndex = driver.applied;
    const snapshot = {
      index: driver.applied,
      term: appliedTerm,
      membership: status.membership,
      data: machine.save(),
    };
    void driver.compact(snapshot, Math.max(snapshotIndex - snapshotKeep, 0) + 1);
  }
  flush();
}

/** One frame a client and turn. */
function flush(): void {
  for (const client of answering) {
    client.socket.send(pack(client.answers));
    client.answers = [];
  }
  answering.clear();
}

function take(client: Client, frame: Buffer): void {
  const requests = unpack(frame) as readonly (number | Buffer)[];
  for (let at = 0; at + 2 < requests.length; at += 3) {
    const asked = { client, id: Number(requests[at]) };
    const payload = requests[at + 2] as Buffer;
    if (requests[at + 1] === opPut) write(asked, payload);
    else if (requests[at + 1] === opGet) read(asked, payload.toString("latin1"));
    else answer(asked, statusRefused, null);
  }
  driver.wake();
}

function write(asked: Asked, payload: Buffer): void {
  const number = nextWrite;
  nextWrite = (nextWrite + 1) % 2 ** 32;
  if (writes.size >= writesMax || payload.length <= reservedBytes) {
    answer(asked, statusRefused, null);
    return;
  }
  payload.writeUInt32BE(ownTag, 0);
  payload.writeUInt32BE(number, 4);
  const result = core.propose(payload);
  if (result.ok) writes.set(number, asked);
  else answer(asked, statusRefused, null);
}

/** Reads of one turn share one round. */
function read(asked: Asked, key: string): void {
  if (openRead === null) {
    openRead = [];
    nextRead += 1;
    reads.set(nextRead, openRead);
    core.readIndex(nextRead);
  }
  openRead.push({ ...asked, key });
}

const peerServer = new WebSocketServer({
  ...raftSocketOptions,
  host: "127.0.0.1",
  port: Number(values.raft),
});
peerServer.on("connection", (socket) => transport.accept(socket));
const http = createServer((_request, response) => {
  const { role, commit } = core.status();
  const { rss } = process.memoryUsage();
  response.end(JSON.stringify({ role, term, leader, commit, termChanges, rss }));
});
const clientServer = new WebSocketServer({
  perMessageDeflate: false,
  maxPayload: frameBytesMax,
  server: http,
});
clientServer.on("connection", (socket) => {
  const client: Client = { socket, answers: [] };
  socket.on("message", (data) => take(client, data as Buffer));
  socket.on("error", () => socket.terminate());
});
http.listen(Number(values.client), "127.0.0.1");
transport.setPeers(addresses);
driver.start();

process.once("SIGTERM", () => {
  peerServer.close();
  http.close();
  for (const socket of clientServer.clients) socket.terminate();
  transport.close();
  driver.stop().then(
    () => storage.close().then(() => process.exit(0)),
    () => process.exit(1),
  );
});
