/** Archives over a socket that a test speaks byte by byte. */
import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { silentLog } from "../lib/log.ts";
import { packed, unpackStream } from "./native-archives.ts";
import { connectNative, type NativeClient } from "./native-client.ts";

let directory: string;
let server: Server;
let client: NativeClient;
/** What is done with the one request of a connection. */
let serve: (socket: Socket, request: { readonly id: number; readonly call: string }) => void;

const result = { digest: "sha256:a", diffId: "sha256:b", bytes: 3, files: 1 };
const fields = { upper: "/u", compression: "none" } as const;
const target = { digest: null, diffId: null, destination: "/d", devices: "refuse" } as const;

beforeEach(async () => {
  directory = await mkdtemp("/tmp/shoal-archives-");
  const socketPath = join(directory, "s");
  server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.once("data", (bytes) => {
      const request = JSON.parse(bytes.toString("utf8", 4));
      // The client's own connection, of which nothing is wanted here.
      if (request.call !== "hello") serve(socket, request);
    });
    socket.on("error", () => {});
  });
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  client = connectNative({ socketPath, log: silentLog });
});
afterEach(async () => {
  client.close();
  server.close();
  await rm(directory, { recursive: true, force: true });
});

function length(bytes: number): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt32BE(bytes);
  return head;
}
function piece(bytes: Uint8Array): Buffer {
  return Buffer.concat([length(bytes.byteLength), bytes]);
}
const frame = (value: object) => piece(Buffer.from(JSON.stringify(value)));
const refusal = { ok: false, code: "invalid", errno: null, message: "no tar", doing: "unpacking" };

test("an archive is what comes in pieces, however it is cut, and its result is last", async () => {
  const big = Buffer.alloc(200_000, 7);
  serve = (socket, { id }) => {
    const all = Buffer.concat([
      frame({ id, ok: true, value: {} }),
      piece(Buffer.from("a")),
      piece(big),
      length(0),
      frame({ id, ok: true, value: { ...result, size: 9 } }),
    ]);
    for (let at = 0; at < all.byteLength; at += 7919) socket.write(all.subarray(at, at + 7919));
    socket.end();
  };
  const { archive, result: known } = await packed(client, "diff", fields);
  expect(known()).toBeNull();
  const hash = createHash("sha256");
  for await (const chunk of archive) hash.update(chunk);
  const wanted = createHash("sha256").update("a").update(big).digest("hex");
  expect(hash.digest("hex")).toBe(wanted);
  expect(known()).toEqual({ ...result, size: 9 });
});

test("an archive that breaks off, or is refused before or in its middle, is an error", async () => {
  serve = (socket, { id }) => {
    socket.end(Buffer.concat([frame({ id, ok: true, value: {} }), length(5), Buffer.from("ab")]));
  };
  const read = async () => {
    const { archive } = await packed(client, "diff", fields);
    for await (const _ of archive);
  };
  await expect(read()).rejects.toMatchObject({ code: "unavailable" });
  serve = (socket, { id }) => {
    const begun = Buffer.concat([frame({ id, ok: true, value: {} }), piece(Buffer.from("ab"))]);
    socket.end(Buffer.concat([begun, length(0), frame({ id, ...refusal })]));
  };
  await expect(read()).rejects.toMatchObject({ nativeCode: "invalid" });
  serve = (socket, { id }) => void socket.end(frame({ id, ...refusal }));
  await expect(read()).rejects.toMatchObject({ nativeCode: "invalid" });
  serve = (socket, { id }) => {
    socket.end(Buffer.concat([frame({ id, ok: true, value: {} }), length(1 << 30)]));
  };
  await expect(read()).rejects.toMatchObject({ code: "internal" });
});

test("a layer is sent to its end, and its result awaited", async () => {
  const hash = createHash("sha256");
  serve = (socket, { id, ...request }) => {
    expect(request).toEqual({ call: "unpack", archive: null, ...target });
    socket.write(frame({ id, ok: true, value: {} }));
    socket.on("data", (chunk) => hash.update(chunk));
    socket.on("end", () => socket.end(frame({ id, ok: true, value: result })));
  };
  const sent = createHash("sha256");
  async function* archive() {
    for (let at = 0; at < 50; at++) {
      const chunk = Buffer.alloc(65_536, at);
      sent.update(chunk);
      yield chunk;
    }
  }
  expect(await unpackStream(client, target, archive())).toEqual(result);
  expect(hash.digest("hex")).toBe(sent.digest("hex"));
});

test("a refused layer ends its source, and a failed source its layer", async () => {
  let ended = false;
  let closed: () => void = () => {};
  const gone = new Promise<void>((resolve) => {
    closed = resolve;
  });
  serve = (socket, { id }) => {
    socket.write(frame({ id, ok: true, value: {} }));
    socket.once("data", () => socket.end(frame({ id, ...refusal })));
    socket.resume();
  };
  async function* endless() {
    try {
      for (;;) yield Buffer.alloc(65_536);
    } finally {
      ended = true;
    }
  }
  await expect(unpackStream(client, target, endless())).rejects.toMatchObject({
    nativeCode: "invalid",
  });
  expect(ended).toBe(true);
  serve = (socket, { id }) => {
    socket.write(frame({ id, ok: true, value: {} }));
    socket.resume();
    socket.on("end", closed);
  };
  async function* failing() {
    yield Buffer.from("begin");
    throw new Error("the network is gone");
  }
  await expect(unpackStream(client, target, failing())).rejects.toThrow("the network is gone");
  await gone;
});
