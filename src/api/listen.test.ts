/** Goal: TCP answers only clients whose certificate our root signed. How: a root, a server and two clients made by openssl, over real TLS. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { request } from "node:https";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { silentLog } from "../lib/log.ts";
import { type ApiServer, createApiServer } from "./server.ts";
import { aWorld, fakeBackend } from "./testing/fake-backend.ts";

let folder: string;
let server: ApiServer;
let port: number;
const pem = (name: string) => readFileSync(join(folder, name), "utf8");

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "shoal-api-tls-"));
  for (const root of ["ca", "other"]) authority(root);
  certificate("server", "ca");
  certificate("client", "ca");
  certificate("stranger", "other");
  port = await freePort();
  server = createApiServer({ backend: fakeBackend(aWorld()), log: silentLog });
  await server.listen({
    host: "127.0.0.1",
    port,
    tls: { ca: pem("ca.crt"), cert: pem("server.crt"), key: pem("server.key") },
  });
});
afterAll(async () => {
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

test("a client of our root is answered", async () => {
  expect(await ping({ cert: pem("client.crt"), key: pem("client.key") })).toBe("200 OK");
});

test("a client of another root, or without a certificate, is not", async () => {
  const stranger = { cert: pem("stranger.crt"), key: pem("stranger.key") };
  await expect(ping(stranger)).rejects.toThrow(/alert|ECONNRESET|socket hang up|EPIPE/);
  await expect(ping({})).rejects.toThrow(/alert|ECONNRESET|socket hang up|EPIPE/);
});

test("a taken port is said by its address", async () => {
  const again = createApiServer({ backend: fakeBackend(aWorld()), log: silentLog });
  const tls = { ca: pem("ca.crt"), cert: pem("server.crt"), key: pem("server.key") };
  await expect(again.listen({ host: "127.0.0.1", port, tls })).rejects.toThrow(
    `cannot listen on 127.0.0.1:${port} for the Engine API: listen EADDRINUSE`,
  );
  await again.close();
});

function ping(identity: { readonly cert?: string; readonly key?: string }): Promise<string> {
  return new Promise((resolve, reject) => {
    const asked = request(
      { host: "127.0.0.1", port, path: "/_ping", ca: pem("ca.crt"), agent: false, ...identity },
      (response) => {
        let text = "";
        response.on("data", (chunk) => {
          text += chunk;
        });
        response.on("end", () => resolve(`${response.statusCode} ${text}`));
      },
    );
    asked.on("error", reject);
    asked.end();
  });
}

const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

function authority(name: string): void {
  openssl(
    "req",
    "-x509",
    ...curve,
    "-subj",
    `/CN=${name}`,
    "-keyout",
    `${name}.key`,
    "-out",
    `${name}.crt`,
  );
}

function certificate(name: string, root: string): void {
  openssl(
    "req",
    ...curve,
    "-subj",
    `/CN=${name}`,
    "-addext",
    "subjectAltName=IP:127.0.0.1",
    "-keyout",
    `${name}.key`,
    "-out",
    `${name}.csr`,
  );
  openssl(
    "x509",
    "-req",
    "-in",
    `${name}.csr`,
    "-CA",
    `${root}.crt`,
    "-CAkey",
    `${root}.key`,
    "-copy_extensions",
    "copy",
    "-out",
    `${name}.crt`,
  );
}

function openssl(...args: readonly string[]): void {
  execFileSync("openssl", args, { cwd: folder, stdio: "pipe" });
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.on("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const address = probe.address();
      probe.close(() => {
        if (address !== null && typeof address === "object") resolve(address.port);
      });
    });
  });
}
