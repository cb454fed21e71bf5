import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { isNative } from "../engine/native-core.ts";
import { silentLog } from "../lib/log.ts";
import { connectNative, type NativeClient } from "./native-client.ts";

let directory: string;
let server: Server | null = null;
let client: NativeClient | null = null;
let sockets: Socket[] = [];
let answer: (request: { id: number; call: string }) => readonly object[] = () => [];

beforeEach(async () => {
  directory = await mkdtemp("/tmp/shoal-native-");
});
afterEach(async () => {
  client?.close();
  hangUp();
  server?.close();
  await rm(directory, { recursive: true, force: true });
});

const socketPath = () => join(directory, "s");
function frame(value: object): Buffer {
  const body = Buffer.from(JSON.stringify(value));
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.byteLength);
  return Buffer.concat([head, body]);
}
async function listen(): Promise<void> {
  const made = createServer((socket) => {
    sockets.push(socket);
    let rest = Buffer.alloc(0);
    socket.on("data", (chunk) => {
      rest = Buffer.concat([rest, chunk]);
      while (rest.byteLength >= 4 && rest.byteLength >= 4 + rest.readUInt32BE(0)) {
        const end = 4 + rest.readUInt32BE(0);
        const request = JSON.parse(rest.toString("utf8", 4, end));
        rest = rest.subarray(end);
        const hello = { version: 1, pid: 9, binary: "b", cgroup: "v1" };
        const replies =
          request.call === "hello" ? [{ id: request.id, ok: true, value: hello }] : answer(request);
        for (const reply of replies) socket.write(frame(reply));
      }
    });
  });
  server = made;
  await new Promise<void>((resolve) => made.listen(socketPath(), resolve));
}
function hangUp(): void {
  for (const socket of sockets) socket.destroy();
  sockets = [];
}

test("calls are answered in any order, failures carry the core's words, events come between", async () => {
  await listen();
  const held: object[] = [];
  answer = (request) => {
    if (request.call === "list") {
      held.push({ id: request.id, ok: true, value: { containers: [] } });
      return [];
    }
    const refused = { code: "already-exists", errno: null, message: "taken", doing: "making c" };
    const event = { event: "oom", containerId: "c" };
    return [event, { id: request.id, ok: false, ...refused }, ...held];
  };
  client = connectNative({ socketPath: socketPath(), log: silentLog });
  const events: unknown[] = [];
  client.onEvent((event) => events.push(event));
  await client.ready();
  expect(client.identity?.pid).toBe(9);
  const list = client.call("list", {});
  const state = client.call("state", { containerId: "c" });
  const error = await state.catch((reason: unknown) => reason);
  expect(isNative(error, "already-exists")).toBe(true);
  expect(String(error)).toContain("asking the native core to state: making c: taken");
  expect(await list).toEqual({ containers: [] });
  expect(events).toEqual([{ event: "oom", containerId: "c" }]);
});

test("while the core is away calls fail at once; it is connected again by itself", async () => {
  client = connectNative({ socketPath: socketPath(), log: silentLog });
  await expect(client.call("list", {})).rejects.toMatchObject({ code: "unavailable" });
  await listen();
  await client.ready();
  answer = () => {
    hangUp();
    return [];
  };
  await expect(client.call("list", {})).rejects.toMatchObject({ code: "unavailable" });
  answer = (request) => [{ id: request.id, ok: true, value: { containers: [] } }];
  await client.ready();
  expect(await client.call("list", {})).toEqual({ containers: [] });
});

test("a frame that is too long ends the connection, not the client", async () => {
  await listen();
  client = connectNative({ socketPath: socketPath(), log: silentLog });
  await client.ready();
  const again = new Promise<void>((resolve) => {
    let first = true;
    client?.onConnected(() => {
      if (!first) resolve();
      first = false;
    });
  });
  await Promise.resolve();
  sockets[0]?.write(Buffer.from([0xff, 0xff, 0xff, 0xff]));
  await again;
  expect(client.connected).toBe(true);
});

test("a stream is what follows the answer of its connection's only request", async () => {
  await listen();
  const asked: string[] = [];
  answer = (request) => {
    asked.push(request.call);
    if (request.call === "logs") {
      const refused = { code: "not-found", errno: null, message: "No such container", doing: "x" };
      return [{ id: request.id, ok: false, ...refused }];
    }
    const socket = sockets.at(-1);
    socket?.write(
      Buffer.concat([
        frame({ id: request.id, ok: true, value: { terminal: false } }),
        Buffer.from("first "),
      ]),
    );
    socket?.end("last");
    return [];
  };
  client = connectNative({ socketPath: socketPath(), log: silentLog });
  const which = { containerId: "c", stdin: true, stdout: true, stderr: true };
  const { value, stream } = await client.stream("attach", which);
  expect(value).toEqual({ terminal: false });
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  expect(Buffer.concat(chunks).toString()).toBe("first last");
  stream.destroy();
  const query = { follow: false, tail: null, sinceNs: null, untilNs: null, timestamps: false };
  const refused = client.stream("logs", { ...query, containerId: "c", stdout: true, stderr: true });
  await expect(refused).rejects.toMatchObject({ nativeCode: "not-found" });
  expect(asked).toEqual(["attach", "logs"]);
});
