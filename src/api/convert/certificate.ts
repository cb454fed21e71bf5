/** The issuer's name and key out of a PEM certificate: docker's command shows both, base64 of their DER. */
import { X509Certificate } from "node:crypto";
import { failure } from "../../lib/errors.ts";

export interface TlsInfo {
  readonly TrustRoot: string;
  readonly CertIssuerSubject: string;
  readonly CertIssuerPublicKey: string;
}

let lastPem = "";
let lastInfo: TlsInfo | null = null;

/** TLSInfo of the API for a root certificate. The last one is remembered: it is asked for with every node. */
export function writeTlsInfo(pem: string): TlsInfo {
  if (lastInfo !== null && lastPem === pem) return lastInfo;
  const certificate = new X509Certificate(pem);
  lastInfo = {
    TrustRoot: pem,
    CertIssuerSubject: Buffer.from(subjectOf(certificate.raw)).toString("base64"),
    CertIssuerPublicKey: certificate.publicKey
      .export({ type: "spki", format: "der" })
      .toString("base64"),
  };
  lastPem = pem;
  return lastInfo;
}

/** The DER of the subject: version [0], serial, signature, issuer and validity come before it (RFC 5280 section 4.1). */
function subjectOf(certificate: Uint8Array): Uint8Array {
  const whole = elementAt(certificate, 0);
  const body = elementAt(certificate, whole.contentAt);
  let at = body.contentAt;
  const hasVersion = certificate[at] === 0xa0;
  const before = hasVersion ? 5 : 4;
  for (let field = 0; field < before; field++) at = elementAt(certificate, at).end;
  return certificate.subarray(at, elementAt(certificate, at).end);
}

/** Where the content of the DER element at `at` begins and ends (X.690 section 8.1.3). */
function elementAt(
  der: Uint8Array,
  at: number,
): { readonly contentAt: number; readonly end: number } {
  const first = der[at + 1] ?? 0;
  if (first < 0x80) return { contentAt: at + 2, end: at + 2 + first };
  const octets = first & 0x7f;
  let length = 0;
  for (let octet = 0; octet < octets; octet++) length = length * 256 + (der[at + 2 + octet] ?? 0);
  const end = at + 2 + octets + length;
  if (end > der.length) {
    throw failure("internal", "the cluster's root certificate is cut short: its DER ends early");
  }
  return { contentAt: at + 2 + octets, end };
}
