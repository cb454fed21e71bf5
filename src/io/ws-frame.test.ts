/** Goal: frames that we write ourselves are frames to ws. Method: both directions of a real connection, beside frames of ws. */
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { present } from "../lib/assert.ts";
import { innerSocket, wholeFrame, wholeFrameBytesMax } from "./ws-frame.ts";

test.each([true, false])(
  "ws reads them as binary messages, from a client: %s",
  async (fromClient) => {
    const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
    onTestFinished(() => server.close());
    await once(server, "listening");
    const client = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`);
    onTestFinished(() => client.terminate());
    const [[accepted]] = await Promise.all([
      once(server, "connection") as Promise<[WebSocket]>,
      once(client, "open"),
    ]);
    onTestFinished(() => accepted.terminate());
    const [from, to] = fromClient ? [client, accepted] : [accepted, client];
    const sizes = [0, 1, 124, 125, 126, 127, 255, 256, 4096, wholeFrameBytesMax];
    const sent = sizes.map((size, at) => Buffer.alloc(size, at + 1));
    const heard: Buffer[] = [];
    const all = new Promise<void>((resolve, reject) => {
      to.on("error", reject);
      to.on("message", (data: Buffer, isBinary) => {
        expect(isBinary).toBe(true);
        heard.push(data);
        if (heard.length === 2 * sent.length) resolve();
      });
    });
    const inner = present(innerSocket(from), "the socket below an open websocket");
    let written = 0;
    for (const message of sent) {
      inner.write(wholeFrame(message, fromClient), () => {
        written += 1;
      });
      from.send(message, { fin: false });
      from.send("", { fin: true });
    }
    await all;
    expect(heard).toEqual(sent.flatMap((message) => [message, message]));
    expect(written).toBe(sent.length);
    expect(innerSocket(to)?.bytesRead).toBeGreaterThan(wholeFrameBytesMax);
  },
);

test("a longer message is refused", () => {
  expect(() => wholeFrame(new Uint8Array(wholeFrameBytesMax + 1), false)).toThrow("must hold");
});
