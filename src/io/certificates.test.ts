import { X509Certificate } from "node:crypto";
import { expect, test } from "vitest";
import type { InstantMs } from "../lib/clock.ts";
import {
  certificateAuthority,
  createNodeKey,
  expiryOf,
  identityOf,
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
