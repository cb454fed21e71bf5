/**
 * X.509 for the cluster: a P-256 root, certificates for nodes, and what a certificate says of its holder.
 * As swarmkit's: CN is the node id, OU the role, O the cluster id (swarmkit ca/certificates.go).
 */
import "reflect-metadata";
import { createHash, createPrivateKey, webcrypto, X509Certificate } from "node:crypto";
import * as x509 from "@peculiar/x509";
import type { InstantMs } from "../lib/clock.ts";
import { failure } from "../lib/errors.ts";
import type { CertificateAuthority, Identity, NodeKey } from "../manager/ca/authority.ts";
import type { NodeRole } from "../model/node.ts";

x509.cryptoProvider.set(webcrypto);

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const rootLifetimeMs = 20 * 365 * 24 * 3600 * 1000;
/** A joiner whose clock is this far behind still accepts a new certificate. */
const backdateMs = 3600 * 1000;
const digestDigits = 50;
const roleUnits: Readonly<Record<NodeRole, string>> = {
  manager: "swarm-manager",
  worker: "swarm-worker",
};

/** SHA-256 of a root certificate's PEM in base 36: the part of a join token that pins the CA. */
export function rootDigest(certificatePem: string): string {
  const hex = createHash("sha256").update(certificatePem.trim()).digest("hex");
  return BigInt(`0x${hex}`).toString(36).padStart(digestDigits, "0");
}

export const certificateAuthority: CertificateAuthority = {
  async createRoot(now) {
    const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      serialNumber: serial(),
      name: "CN=swarm-ca",
      notBefore: new Date(now - backdateMs),
      notAfter: new Date(now + rootLifetimeMs),
      signingAlgorithm: algorithm,
      keys,
      extensions: [
        new x509.BasicConstraintsExtension(true, 1, true),
        new x509.KeyUsagesExtension(
          x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign,
          true,
        ),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      ],
    });
    const certificatePem = `${certificate.toString("pem").trim()}\n`;
    return {
      certificatePem,
      keyPem: await exportKey(keys.privateKey),
      digest: rootDigest(certificatePem),
    };
  },

  async sign(root, csrPem, identity, lifetimeMs, now) {
    let request: x509.Pkcs10CertificateRequest;
    try {
      request = new x509.Pkcs10CertificateRequest(csrPem);
      if (!(await request.verify())) throw new Error("its signature does not match its key");
    } catch (error) {
      throw failure(
        "invalid",
        `signing a certificate: the request is broken: ${String(error)}`,
        error,
      );
    }
    const key = createPrivateKey(root.keyPem);
    const signingKey = await webcrypto.subtle.importKey(
      "pkcs8",
      key.export({ type: "pkcs8", format: "der" }),
      algorithm,
      false,
      ["sign"],
    );
    const issuer = new x509.X509Certificate(root.certificatePem);
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: serial(),
      subject: subjectOf(identity),
      issuer: issuer.subject,
      notBefore: new Date(now - backdateMs),
      notAfter: new Date(now + lifetimeMs),
      signingAlgorithm: algorithm,
      publicKey: request.publicKey,
      signingKey,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(
          x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyEncipherment,
          true,
        ),
        new x509.ExtendedKeyUsageExtension([
          x509.ExtendedKeyUsage.serverAuth,
          x509.ExtendedKeyUsage.clientAuth,
        ]),
        new x509.SubjectAlternativeNameExtension([
          { type: "dns", value: roleUnits[identity.role] },
          { type: "dns", value: identity.nodeId },
        ]),
        await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
      ],
    });
    return `${certificate.toString("pem").trim()}\n`;
  },
};

/** A fresh node key and the request that asks a manager to certify it. The manager fills in the subject. */
export async function createNodeKey(): Promise<NodeKey> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: "CN=joining-node",
    keys,
    signingAlgorithm: algorithm,
  });
  return {
    keyPem: await exportKey(keys.privateKey),
    csrPem: `${request.toString("pem").trim()}\n`,
  };
}

/** Whom a certificate names; null when it is none of ours. Says nothing of whether it is to be trusted. */
export function identityOf(certificatePem: string): Identity | null {
  const subject = new Map(
    new X509Certificate(certificatePem).subject.split("\n").flatMap((line): [string, string][] => {
      const at = line.indexOf("=");
      return at < 0 ? [] : [[line.slice(0, at), line.slice(at + 1)]];
    }),
  );
  return identityFrom(subject.get("CN"), subject.get("OU"), subject.get("O"));
}

/** The identity in subject fields as TLS gives them. */
export function identityFrom(
  commonName: string | undefined,
  unit: string | undefined,
  organization: string | undefined,
): Identity | null {
  if (commonName === undefined || organization === undefined) return null;
  for (const role of ["manager", "worker"] as const) {
    if (unit === roleUnits[role]) return { nodeId: commonName, clusterId: organization, role };
  }
  return null;
}

/** True for a whole, self-signed certificate of an authority. */
export function isRoot(certificatePem: string): boolean {
  return holds(() => {
    const root = new X509Certificate(certificatePem);
    return root.ca && root.verify(root.publicKey);
  });
}

/** True when the root signed the certificate and the key is the certificate's. Says nothing of its dates. */
export function certifies(rootPem: string, certificatePem: string, keyPem: string): boolean {
  return holds(() => {
    const certificate = new X509Certificate(certificatePem);
    return (
      certificate.verify(new X509Certificate(rootPem).publicKey) &&
      certificate.checkPrivateKey(createPrivateKey(keyPem))
    );
  });
}

/** False, too, for what does not parse: Node then throws OpenSSL's words, which say nothing to a user. */
function holds(check: () => boolean): boolean {
  try {
    return check();
  } catch {
    return false;
  }
}

/** When a certificate stops being good. */
export function expiryOf(certificatePem: string): InstantMs {
  return Date.parse(new X509Certificate(certificatePem).validTo) as InstantMs;
}

function subjectOf(identity: Identity): string {
  return `CN=${identity.nodeId}, OU=${roleUnits[identity.role]}, O=${identity.clusterId}`;
}

function serial(): string {
  const bytes = webcrypto.getRandomValues(new Uint8Array(16));
  // A leading bit would make the DER integer negative.
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return Buffer.from(bytes).toString("hex");
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", key));
  return createPrivateKey({ key: der, type: "pkcs8", format: "der" })
    .export({ type: "pkcs8", format: "pem" })
    .toString();
}
