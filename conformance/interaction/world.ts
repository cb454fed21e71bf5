/** The world of one transcript: nodes, a bag of messages between them, and the 21 directives that act on both. */
import { assert, present } from "../../src/lib/assert.ts";
import { EMPTY_STATE } from "../../src/raft/bootstrap.ts";
import { RAFT_DEFAULTS } from "../../src/raft/limits.ts";
import { isMember, isVoter } from "../../src/raft/membership.ts";
import { isReply } from "../../src/raft/state.ts";
import type {
  MembershipChange,
  Message,
  PeerId,
  ProposeResult,
  RaftConfig,
  SavedState,
} from "../../src/raft/types.ts";
import type { Argument, Command } from "../grammar.ts";
import {
  describeEntries,
  describeProgress,
  describeRole,
  describeSnapshot,
  indented,
} from "./describe.ts";
import { EntryTypes, Node, type Parcel } from "./node.ts";
import type { LogLine } from "./wording.ts";

const ELECTION_TICKS = 3;
const HEARTBEAT_TICKS = 1;
/** Rounds of a stabilize; a transcript that needs more does not come to rest. */
const STABILIZE_ROUNDS_MAX = 10_000;
const LEVELS = ["DEBUG", "INFO", "WARN", "ERROR", "FATAL", "NONE"] as const;
const UNLIMITED = Number.MAX_SAFE_INTEGER;

/** The configuration of etcd's test nodes, with the timing and the rules of etcd where ours differ. */
const ETCD: Omit<RaftConfig, "id" | "random"> = {
  ...RAFT_DEFAULTS,
  electionTicks: ELECTION_TICKS,
  heartbeatTicks: HEARTBEAT_TICKS,
  appendBytesMax: UNLIMITED,
  inflightMessagesMax: UNLIMITED,
  inflightBytesMax: UNLIMITED,
  uncommittedBytesMax: UNLIMITED,
  committedBytesPerReadyMax: UNLIMITED,
  voteRequestsAtOnce: true,
  appendsAtOnce: true,
  preVote: false,
  checkQuorum: false,
  stepDownOnRemoval: false,
  refusedMembership: "empty-entry",
  refusalsTellCommitted: false,
};

export class World {
  readonly #nodes = new Map<PeerId, Node>();
  readonly #types = new EntryTypes();
  /** The election timeouts that the transcript sets, in ticks, by node. */
  readonly #timeouts: ReadonlyMap<PeerId, number>;
  #bag: Parcel[] = [];
  #output = "";
  #level = 0;

  /** `commands` are those that will be run: the timeouts they set are what the nodes draw by chance. */
  constructor(commands: readonly Command[]) {
    this.#timeouts = new Map(
      commands
        .filter((command) => command.name === "set-randomized-election-timeout")
        .map(({ args }) => [first(args), Number(onlyValue(args, "timeout"))] as const),
    );
  }

  /** Runs one directive and gives its output. */
  run(command: Command): string {
    this.#output = "";
    const error = this.#dispatch(command);
    if (error !== null && this.#quiet()) return error;
    if (error !== null) this.#write(error);
    return this.#output === "" ? "ok" : this.#output;
  }

  #dispatch(command: Command): string | null {
    const { name, args } = command;
    switch (name) {
      case "add-nodes":
        return this.#addNodes(args);
      case "campaign":
        this.#node(first(args)).core.campaign();
        return null;
      case "compact":
        this.#node(first(args)).compact(Number(plain(args)[1]));
        this.#raftLog(this.#node(first(args)));
        return null;
      case "deliver-msgs":
        this.#deliverMessages(args);
        return null;
      case "forget-leader":
        this.#node(first(args)).core.forgetLeader();
        return null;
      case "log-level":
        return this.#setLevel(first(args));
      case "process-append-thread":
        this.#eachNode(args, "processing append thread", (node) => this.#appendThread(node));
        return null;
      case "process-apply-thread":
        this.#eachNode(args, "processing apply thread", (node) => this.#applyThread(node));
        return null;
      case "process-ready":
        this.#eachNode(args, "handling Ready", (node) => node.processReady());
        return null;
      case "propose": {
        const data = new TextEncoder().encode(plain(args)[1] ?? "");
        return dropped(this.#node(first(args)).core.propose(data));
      }
      case "propose-conf-change":
        return this.#proposeMembership(command);
      case "raft-log":
        this.#raftLog(this.#node(first(args)));
        return null;
      case "raft-state":
        this.#raftState();
        return null;
      case "report-unreachable":
        this.#node(first(args)).core.peerUnreachable(plain(args)[1] ?? "");
        return null;
      case "send-snapshot":
        this.#sendSnapshot(first(args), plain(args)[1] ?? "");
        return null;
      case "set-randomized-election-timeout":
        // Drawn from the start, see the constructor.
        assert(this.#timeouts.has(first(args)), "the timeout was known beforehand");
        return null;
      case "stabilize":
        return this.#stabilizeAt(args);
      case "status":
        for (const progress of this.#node(first(args)).core.status().progress) {
          this.#write(`${progress.id}: ${describeProgress(progress)}\n`);
        }
        return null;
      case "tick-election":
        this.#tick(first(args), ELECTION_TICKS);
        return null;
      case "tick-heartbeat":
        this.#tick(first(args), HEARTBEAT_TICKS);
        return null;
      case "transfer-leadership": {
        const from = present(onlyValue(args, "from"), "who hands over");
        this.#node(from).core.transferLeadership(present(onlyValue(args, "to"), "who takes over"));
        return null;
      }
      default:
        return "unknown command";
    }
  }

  #node(id: PeerId): Node {
    return present(this.#nodes.get(id), `node ${id}`);
  }

  #quiet(): boolean {
    return LEVELS[this.#level] === "NONE";
  }

  #write(text: string): void {
    if (!this.#quiet()) this.#output += text;
  }

  #log({ level, text }: LogLine): void {
    if (this.#level > LEVELS.indexOf(level)) return;
    for (const line of text.split("\n")) this.#write(`${level} ${line}\n`);
  }

  /** Whatever `act` writes stands two spaces in, each line ended. */
  #indent(act: () => void): void {
    const before = this.#output;
    this.#output = "";
    act();
    const text = this.#output.replace(/\n$/, "");
    this.#output = text === "" ? before : `${before}${indented(text)}\n`;
  }

  #setLevel(name: string): string | null {
    const level = LEVELS.findIndex((known) => known.toLowerCase() === name.toLowerCase());
    if (level < 0) return `log levels must be either of ${LEVELS.join(", ")}`;
    this.#level = level;
    return null;
  }

  #eachNode(args: readonly Argument[], title: string, act: (node: Node) => void): void {
    const ids = plain(args);
    for (const id of ids) {
      if (ids.length === 1) act(this.#node(id));
      else {
        this.#write(`> ${id} ${title}\n`);
        this.#indent(() => act(this.#node(id)));
      }
    }
  }

  #addNodes(args: readonly Argument[]): string | null {
    const index = Number(onlyValue(args, "index") ?? 0);
    const membership = {
      voters: valuesOf(args, "voters"),
      outgoing: [],
      learners: valuesOf(args, "learners"),
      learnersNext: [],
      autoLeave: false,
    };
    const data = new TextEncoder().encode(onlyValue(args, "content") ?? "");
    const bootstrapped = index > 0 || membership.voters.length > 0;
    if (bootstrapped && index <= 1) return "index must be specified as > 1 due to bootstrap";
    const saved: SavedState = bootstrapped
      ? {
          hardState: { term: 0, vote: null, commit: index },
          snapshot: { index, term: 1, membership, data },
          entries: [],
        }
      : EMPTY_STATE;
    for (let count = Number(first(args)); count > 0; count -= 1) this.#addNode(args, saved);
    return null;
  }

  #addNode(args: readonly Argument[], saved: SavedState): void {
    const id = `${this.#nodes.size + 1}`;
    const flag = (key: string): boolean => onlyValue(args, key) === "true";
    const count = (key: string): number => Number(onlyValue(args, key) ?? UNLIMITED);
    const lease = onlyValue(args, "read-only") === "lease-based";
    const timeout = this.#timeouts.get(id) ?? 2 * ELECTION_TICKS - 1;
    let now = 0;
    const config: RaftConfig = {
      ...ETCD,
      id,
      asyncStorageWrites: flag("async-storage-writes"),
      preVote: flag("prevote"),
      checkQuorum: flag("checkquorum"),
      stepDownOnRemoval: flag("step-down-on-removal"),
      disableMembershipValidation: flag("disable-conf-change-validation"),
      inflightMessagesMax: count("inflight"),
      committedBytesPerReadyMax: count("max-committed-size-per-ready"),
      readMode: lease ? "lease" : "quorum",
      ...(lease ? { leaseClock: { now: () => now++, tickMs: 1 } } : {}),
      random: { below: () => timeout - ELECTION_TICKS, id: () => id },
    };
    this.#nodes.set(
      id,
      new Node(config, saved, {
        typeOf: (entry) => this.#types.typeOf(entry),
        step: (message) => this.#step(message),
        post: (parcels) => this.#bag.push(...parcels),
        write: (text) => this.#write(text),
        log: (line) => this.#log(line),
      }),
    );
  }

  #deliverMessages(args: readonly Argument[]): void {
    const type = onlyValue(args, "type");
    const deliveries = plain(args).map((id) => ({ id, drop: false }));
    deliveries.push(...valuesOf(args, "drop").map((id) => ({ id, drop: true })));
    let handled = 0;
    for (const { id, drop } of deliveries) handled += this.#deliver(id, drop, type);
    if (handled === 0) this.#write("no messages\n");
  }

  /** Delivers, or drops, what is on its way to `to`. Gives the number of messages. */
  #deliver(to: PeerId, drop: boolean, type: string | null): number {
    const chosen = (parcel: Parcel): boolean =>
      parcel.to === to && !(drop && parcel.local) && (type === null || parcel.type === type);
    const parcels = this.#bag.filter(chosen);
    this.#bag = this.#bag.filter((parcel) => !chosen(parcel));
    for (const parcel of parcels) {
      this.#write(`${drop ? "dropped: " : ""}${parcel.text}\n`);
      if (!drop) this.#write(parcel.deliver());
    }
    return parcels.length;
  }

  /** Hands over a message. What etcd's RawNode says of a reply that its core would not hear. */
  #step(message: Message): string {
    const { core } = this.#node(message.to);
    const { membership } = core.status();
    const stranger = isReply(message) && !isMember(membership, message.from);
    core.step(message);
    return stranger ? "raft: cannot step as peer not found\n" : "";
  }

  #appendThread(node: Node): void {
    const work = node.appendWork.shift();
    if (work === undefined) this.#write("no append work to perform");
    else this.#work(work);
  }

  #applyThread(node: Node): void {
    const work = node.applyWork.shift();
    if (work === undefined) this.#write("no apply work to perform");
    else this.#work(work);
  }

  #work({ request, responses, run }: Node["appendWork"][number]): void {
    this.#write(`Processing:\n${request}\n`);
    run();
    this.#write(`Responses:\n${responses.map(({ text }) => `${text}\n`).join("")}`);
    this.#bag.push(...responses);
  }

  #stabilizeAt(args: readonly Argument[]): string | null {
    const before = this.#level;
    const level = onlyValue(args, "log-level");
    const error = level === null ? null : this.#setLevel(level);
    if (error !== null) return error;
    const ids = plain(args);
    this.#stabilize(ids.length > 0 ? ids.map((id) => this.#node(id)) : [...this.#nodes.values()]);
    this.#level = before;
    return null;
  }

  #stabilize(nodes: readonly Node[]): void {
    for (let rounds = 0; rounds < STABILIZE_ROUNDS_MAX; rounds += 1) {
      if (!this.#stabilizeOnce(nodes)) return;
    }
    throw new Error(`stabilize does not come to rest within ${STABILIZE_ROUNDS_MAX} rounds`);
  }

  /** False when there was nothing to do. */
  #stabilizeOnce(nodes: readonly Node[]): boolean {
    let busy = false;
    const part = (node: Node, title: string, act: () => void): void => {
      busy = true;
      this.#write(`> ${node.id} ${title}\n`);
      act();
    };
    for (const node of nodes) {
      if (!node.core.hasReady()) continue;
      part(node, "handling Ready", () => this.#indent(() => node.processReady()));
    }
    for (const node of nodes) {
      if (!this.#bag.some(({ to }) => to === node.id)) continue;
      part(node, "receiving messages", () =>
        this.#indent(() => this.#deliver(node.id, false, null)),
      );
    }
    for (const node of nodes) {
      if (node.appendWork.length === 0) continue;
      part(node, "processing append thread", () => {
        while (node.appendWork.length > 0) this.#indent(() => this.#appendThread(node));
      });
    }
    for (const node of nodes) {
      if (node.applyWork.length === 0) continue;
      part(node, "processing apply thread", () => {
        while (node.applyWork.length > 0) this.#indent(() => this.#applyThread(node));
      });
    }
    return busy;
  }

  #proposeMembership({ args, input }: Command): string | null {
    const v1 = onlyValue(args, "v1") === "true";
    const kinds = { v: "add-voter", l: "add-learner", r: "remove" } as const;
    const changes = input
      .split(/\s+/)
      .filter((word) => word !== "")
      .map((word) => ({
        kind: kinds[word.slice(0, 1) as keyof typeof kinds],
        id: word.slice(1),
      }));
    for (const { kind } of changes) assert(kind !== undefined, `${input} adds or removes`);
    const transitions = { auto: "auto", implicit: "joint-implicit", explicit: "joint-explicit" };
    const wanted = (onlyValue(args, "transition") ?? "auto") as keyof typeof transitions;
    const transition = transitions[wanted] as MembershipChange["transition"] | undefined;
    if (transition === undefined) return `unknown transition ${wanted}`;
    const change: MembershipChange = { changes, transition };
    this.#types.proposed(change, v1 ? "EntryConfChange" : "EntryConfChangeV2");
    return dropped(this.#node(first(args)).core.proposeMembership(change));
  }

  #raftLog({ storage }: Node): void {
    const { firstIndex, lastIndex, entries } = storage;
    if (entries.length === 0) {
      this.#write(`log is empty: first index=${firstIndex}, last index=${lastIndex}`);
    } else this.#write(describeEntries(entries, (entry) => this.#types.typeOf(entry)));
  }

  #raftState(): void {
    for (const { core } of this.#nodes.values()) {
      const { id, role, term, leader, membership } = core.status();
      const voter = isVoter(membership, id) ? "(Voter)" : "(Non-Voter)";
      this.#write(`${id}: ${describeRole(role)} ${voter} Term:${term} Lead:${leader ?? 0}\n`);
    }
  }

  #sendSnapshot(from: PeerId, to: PeerId): void {
    const { core, snapshot } = this.#node(from);
    const { term } = core.status();
    const text = `${from}->${to} MsgSnap Term:${term} Log:0/0\n  Snapshot: ${describeSnapshot(snapshot)}`;
    const deliver = (): string => this.#step({ kind: "snapshot", from, to, term, snapshot });
    this.#bag.push({ to, type: "MsgSnap", local: false, text, deliver });
    this.#write(text);
  }

  #tick(id: PeerId, count: number): void {
    for (let i = 0; i < count; i += 1) this.#node(id).core.tick();
  }
}

function dropped(result: ProposeResult): string | null {
  return result.ok ? null : "raft proposal dropped";
}

/** The arguments without values: mostly nodes. */
function plain(args: readonly Argument[]): string[] {
  return args.filter(({ values }) => values.length === 0).map(({ key }) => key);
}

function first(args: readonly Argument[]): string {
  return present(plain(args)[0], "the first argument");
}

function valuesOf(args: readonly Argument[], key: string): readonly string[] {
  return args.find((argument) => argument.key === key)?.values ?? [];
}

function onlyValue(args: readonly Argument[], key: string): string | null {
  return valuesOf(args, key)[0] ?? null;
}
