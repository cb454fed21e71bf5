/** One peer of a transcript: a core, its storage, its state machine, and the work of its append and apply threads. */
import { assert, present } from "../../src/lib/assert.ts";
import { createRaft } from "../../src/raft/core.ts";
import { EMPTY_MEMBERSHIP, encodeMembershipChange } from "../../src/raft/membership.ts";
import type { NoteState, RaftNote } from "../../src/raft/notes.ts";
import type {
  Entry,
  MembershipChange,
  Message,
  PeerId,
  RaftConfig,
  RaftCore,
  Ready,
  SavedState,
  Snapshot,
} from "../../src/raft/types.ts";
import {
  describeAppendDone,
  describeAppendRequest,
  describeApplyDone,
  describeApplyRequest,
  describeMessage,
  describeReady,
  type EntryTypeOf,
  messageType,
  type SoftState,
  withResponses,
} from "./describe.ts";
import { Storage } from "./storage.ts";
import { type LogLine, word } from "./wording.ts";

/** Something on its way to `to`. */
export interface Parcel {
  readonly to: PeerId;
  readonly type: string;
  /** Between a node and its own threads: never lost. */
  readonly local: boolean;
  readonly text: string;
  /** Gives what the receiver says to that. */
  readonly deliver: () => string;
}

interface Save {
  readonly ready: Ready;
  /** What the node waits for before the core is told of it. */
  told: boolean;
}
interface Work {
  readonly request: string;
  readonly responses: readonly Parcel[];
  readonly run: () => void;
}

export interface NodeContext {
  readonly typeOf: EntryTypeOf;
  /** Hands a message to the core of its receiver. */
  readonly step: (message: Message) => string;
  readonly post: (parcels: readonly Parcel[]) => void;
  /** Takes output, in order. */
  readonly write: (text: string) => void;
  readonly log: (line: LogLine) => void;
}

export class Node {
  readonly id: PeerId;
  readonly core: RaftCore;
  readonly storage: Storage;
  readonly appendWork: Work[] = [];
  readonly applyWork: Work[] = [];
  /** What the state machine can give as a snapshot: its newest state. */
  snapshot: Snapshot;
  readonly #async: boolean;
  readonly #context: NodeContext;
  /** Saves of which the core was not told yet, oldest first. */
  readonly #saves: Save[] = [];
  readonly #late: LogLine[] = [];
  #softState: SoftState = { leader: null, role: "follower" };
  #term: number;
  #vote: PeerId | null = null;

  constructor(config: RaftConfig, saved: SavedState, context: NodeContext) {
    this.id = config.id;
    this.#async = config.asyncStorageWrites;
    this.#context = context;
    this.core = createRaft({ ...config, note: (note, at) => this.#note(note, at) }, saved);
    this.storage = new Storage(saved);
    this.#term = saved.hardState.term;
    this.snapshot = saved.snapshot ?? {
      index: 0,
      term: 0,
      membership: EMPTY_MEMBERSHIP,
      data: new Uint8Array(0),
    };
  }

  /** Draws a Ready, describes it, and does what it asks for, or hands that to the threads. */
  processReady(): void {
    const ready = this.core.ready();
    this.#context.write(this.#describe(ready));
    if (this.#async) this.#start(ready);
    else this.#finish(ready);
  }

  #note(note: RaftNote, at: NoteState): void {
    const line = word(note, at);
    if (line === null) return;
    // Our core hears of a save at once; etcd's in several messages, of which these lines belong to the last.
    const late = note.kind === "save-of-earlier-term" || note.kind === "save-outlived";
    if (late && this.#async) this.#late.push(line);
    else this.#context.log(line);
  }

  #logLate(): void {
    for (const line of this.#late.splice(0)) this.#context.log(line);
  }

  #finish(ready: Ready): void {
    this.storage.save(ready);
    this.#context.post([...ready.messages, ...ready.afterSave].map((m) => this.#parcel(m)));
    this.core.advance();
    this.#apply(ready.committed);
    this.#offerSnapshot();
  }

  #start(ready: Ready): void {
    this.#context.post(ready.messages.map((message) => this.#parcel(message)));
    if (needsAppend(ready)) this.appendWork.push(this.#appendWork(ready));
    if (ready.committed.length > 0) this.applyWork.push(this.#applyWork(ready.committed));
  }

  #appendWork(ready: Ready): Work {
    const save: Save = { ready, told: false };
    if (ready.save !== null) this.#saves.push(save);
    const tell = (): string => this.#tell(save);
    const own = ready.toSelf.map((message) => ({ ...this.#parcel(message), deliver: tell }));
    const responses: Parcel[] = [
      ...own,
      ...ready.afterSave.map((message) => this.#parcel(message)),
    ];
    const done = describeAppendDone(this.id, ready.save, ready.snapshot);
    if (done !== null) {
      responses.push({
        to: this.id,
        type: "MsgStorageAppendResp",
        local: true,
        text: done,
        deliver: () => {
          const answer = tell();
          this.#logLate();
          return answer;
        },
      });
    }
    const run = (): void => {
      this.storage.save(ready);
      // Nobody waits: the core may know at once.
      if (ready.save !== null && done === null && own.length === 0) tell();
    };
    return {
      request: describeAppendRequest(this.id, ready, this.#context.typeOf),
      responses,
      run,
    };
  }

  /** The core hears of saves in their order. */
  #tell(save: Save): string {
    save.told = true;
    while (this.#saves[0]?.told === true) {
      const { ready } = present(this.#saves.shift(), "the oldest save");
      this.core.saved(present(ready.save, "the token of a save"));
    }
    return "";
  }

  #applyWork(committed: readonly Entry[]): Work {
    const { typeOf } = this.#context;
    const last = present(committed.at(-1), "the last committed entry");
    const deliver = (): string => {
      this.core.applied(last.index);
      this.#offerSnapshot();
      return "";
    };
    return {
      request: describeApplyRequest(this.id, committed, typeOf),
      responses: [
        {
          to: this.id,
          type: "MsgStorageApplyResp",
          local: true,
          text: describeApplyDone(this.id, committed, typeOf),
          deliver,
        },
      ],
      run: () => this.#apply(committed),
    };
  }

  /** The state machine of the transcripts appends the payload of each entry. */
  #apply(committed: readonly Entry[]): void {
    for (const { index, term, kind, data } of committed) {
      const payload = kind === "membership" ? new Uint8Array(0) : data;
      this.snapshot = {
        index,
        term,
        membership: this.core.status().membership,
        data: Uint8Array.of(...this.snapshot.data, ...payload),
      };
    }
  }

  /** The core sends the newest snapshot to whoever needs one; no entry is forgotten by this. */
  #offerSnapshot(): void {
    const { applied, firstIndex, membership } = this.core.status();
    if (this.snapshot.index !== applied || applied === 0 || firstIndex > applied + 1) return;
    this.snapshot = { ...this.snapshot, membership };
    this.core.compact(this.snapshot, firstIndex);
  }

  /** Forgets entries through `index`. */
  compact(index: number): void {
    this.storage.compact(index + 1);
    this.core.compact(this.snapshot, index + 1);
  }

  #parcel(message: Message): Parcel {
    return {
      to: message.to,
      type: messageType(message),
      local: message.to === this.id,
      text: describeMessage(message, this.#context.typeOf),
      deliver: () => this.#context.step(message),
    };
  }

  #describe(ready: Ready): string {
    const { typeOf } = this.#context;
    const { leader, role } = ready;
    const changed = leader !== this.#softState.leader || role !== this.#softState.role;
    this.#softState = { leader, role };
    // etcd leaves it to the storage to sync a snapshot.
    const { term, vote } = ready.hardState ?? { term: this.#term, vote: this.#vote };
    const mustSync = ready.entries.length > 0 || term !== this.#term || vote !== this.#vote;
    assert(!mustSync || ready.mustSync, "what etcd syncs is synced");
    this.#term = term;
    this.#vote = vote;
    const messages = ready.messages.map((message) => describeMessage(message, typeOf));
    if (!this.#async) {
      messages.push(...ready.afterSave.map((message) => describeMessage(message, typeOf)));
    } else messages.push(...this.#describeWork(ready));
    return describeReady(ready, changed ? { leader, role } : null, mustSync, messages, typeOf);
  }

  #describeWork(ready: Ready): string[] {
    const { typeOf } = this.#context;
    const texts: string[] = [];
    if (needsAppend(ready)) {
      const done = describeAppendDone(this.id, ready.save, ready.snapshot);
      texts.push(
        withResponses(describeAppendRequest(this.id, ready, typeOf), [
          ...ready.toSelf.map((message) => describeMessage(message, typeOf)),
          ...ready.afterSave.map((message) => describeMessage(message, typeOf)),
          ...(done === null ? [] : [done]),
        ]),
      );
    }
    if (ready.committed.length > 0) {
      texts.push(
        withResponses(describeApplyRequest(this.id, ready.committed, typeOf), [
          describeApplyDone(this.id, ready.committed, typeOf),
        ]),
      );
    }
    return texts;
  }
}

function needsAppend(ready: Ready): boolean {
  const { hardState, entries, snapshot, afterSave, toSelf } = ready;
  return (
    hardState !== null ||
    entries.length > 0 ||
    snapshot !== null ||
    afterSave.length > 0 ||
    toSelf.length > 0
  );
}

/**
 * Knows which of etcd's two types a change of membership was proposed under: ours has one form for both, so the proposer's
 * word is remembered with the bytes.
 */
export class EntryTypes {
  readonly #proposed = new Map<string, string>();
  readonly #types = new WeakMap<Uint8Array, string>();

  proposed(change: MembershipChange, type: string): void {
    this.#proposed.set(keyOf(encodeMembershipChange(change)), type);
  }

  typeOf({ kind, data }: Pick<Entry, "kind" | "data">): string {
    if (kind !== "membership") return "EntryNormal";
    const known = this.#types.get(data) ?? this.#proposed.get(keyOf(data)) ?? "EntryConfChangeV2";
    this.#types.set(data, known);
    return known;
  }
}

function keyOf(data: Uint8Array): string {
  return new TextDecoder().decode(data);
}
