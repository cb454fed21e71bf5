/** One request to a node's cluster port from inside its network, with any certificate: what a stranger or a bad node could try. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { LoneNode } from "./lone-node.ts";

export interface Probe {
  /** `host:port`. */
  readonly address: string;
  readonly path: string;
  readonly method?: string;
  /** JSON. */
  readonly body?: unknown;
  readonly certificatePem?: string;
  readonly keyPem?: string;
  /** Ask for a websocket. */
  readonly upgrade?: boolean;
}
export interface ProbeAnswer {
  /** 101 for a websocket that was opened; 0 when the connection was cut instead. */
  readonly status: number;
  readonly text: string;
}

/** Runs in a node process of its own inside the namespace; the probe is its argument. */
const script = `
import { request } from "node:https";
const probe = JSON.parse(process.argv[2]);
const [host, port] = probe.address.split(":");
const say = (status, text) => { process.stdout.write(JSON.stringify({ status, text })); process.exit(0); };
const headers = probe.upgrade ? { Connection: "Upgrade", Upgrade: "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "c2hvYWwtdGVzdC1rZXktMQ==" } : {};
const outgoing = request({ host, port, path: probe.path, method: probe.method ?? "GET", rejectUnauthorized: false, agent: false, headers, timeout: 5000, cert: probe.certificatePem, key: probe.keyPem });
outgoing.on("upgrade", () => say(101, ""));
outgoing.on("timeout", () => say(0, "timeout"));
outgoing.on("error", (error) => say(0, String(error)));
outgoing.on("response", (response) => { let text = ""; response.on("data", (chunk) => { text += chunk; }); response.on("end", () => say(response.statusCode, text)); });
outgoing.end(probe.body === undefined ? undefined : JSON.stringify(probe.body));
`;

/** Sends the probe from `from`'s network. */
export async function sendProbe(from: LoneNode, probe: Probe): Promise<ProbeAnswer> {
  const path = join(from.folder, "probe.mjs");
  await writeFile(path, script);
  return JSON.parse(
    await from.inside(process.execPath, path, JSON.stringify(probe)),
  ) as ProbeAnswer;
}
