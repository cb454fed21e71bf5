import { X509Certificate } from "node:crypto";
import { expect, test } from "vitest";
import type { InstantMs } from "../lib/clock.ts";
import {
  certificateAuthority,
  certifies,
  createNodeKey,
  expiryOf,
  identityOf,
  isRoot,
  rootDigest,
} from "./certificates.ts";

const now = Date.parse("2026-11-21T00:00:00Z") as InstantMs;

test("sign gives a certificate of the root that names node, role and cluster", async () => {
  const root = await certificateAuthority.createRoot(now);
  const key = await createNodeKey();
  const identity = { nodeId: "n".repeat(25), clusterId: "c".repeat(25), role: "worker" } as const;
  const pem = await certificateAuthority.sign(root, key.csrPem, identity, 90 * 86_400_000, now);
  expect(identityOf(pem)).toEqual(identity);
  const leaf = new X509Certificate(pem);
  expect(leaf.verify(new X509Certificate(root.certificatePem).publicKey)).toBe(true);
  expect(leaf.ca).toBe(false);
  expect(expiryOf(pem)).toBe(now + 90 * 86_400_000);
  expect(root.digest).toBe(rootDigest(root.certificatePem));
  expect(root.digest).toMatch(/^[0-9a-z]{50}$/);
});

test("sign refuses a request that is broken", async () => {
  const root = await certificateAuthority.createRoot(now);
  const identity = { nodeId: "n", clusterId: "c", role: "manager" } as const;
  await expect(certificateAuthority.sign(root, "rubbish", identity, 1, now)).rejects.toThrow(
    "the request is broken",
  );
});

test("a key, a certificate and a root belong together, or it is told", async () => {
  const [root, other] = [
    await certificateAuthority.createRoot(now),
    await certificateAuthority.createRoot(now),
  ];
  const [key, otherKey] = [await createNodeKey(), await createNodeKey()];
  const identity = { nodeId: "n", clusterId: "c", role: "worker" } as const;
  const pem = await certificateAuthority.sign(root, key.csrPem, identity, 86_400_000, now);
  expect(isRoot(root.certificatePem)).toBe(true);
  expect(isRoot(pem)).toBe(false);
  expect(certifies(root.certificatePem, pem, key.keyPem)).toBe(true);
  expect(certifies(root.certificatePem, pem, otherKey.keyPem)).toBe(false);
  expect(certifies(other.certificatePem, pem, key.keyPem)).toBe(false);
  expect(certifies(root.certificatePem, pem, "rubbish")).toBe(false);
  // A flipped bit anywhere within the text between the marks is noticed.
  const body = pem.indexOf("\n") + 1;
  for (let at = body; at < pem.lastIndexOf("\n-----END"); at += 7) {
    const bytes = Buffer.from(pem);
    bytes[at] = (bytes[at] ?? 0) ^ 0x04;
    expect(certifies(root.certificatePem, bytes.toString(), key.keyPem)).toBe(false);
  }
  for (let at = 30; at < root.certificatePem.length - 30; at += 7) {
    const bytes = Buffer.from(root.certificatePem);
    bytes[at] = (bytes[at] ?? 0) ^ 0x04;
    expect(isRoot(bytes.toString())).toBe(false);
  }
});
