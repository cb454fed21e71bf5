/** What the managers need of X.509; io/certificates.ts does it. */
import type { InstantMs } from "../../lib/clock.ts";
import type { Cluster } from "../../model/cluster.ts";
import type { NodeRole } from "../../model/node.ts";

export type RootCa = Cluster["rootCa"];
/** Who a certificate says its holder is. */
export interface Identity {
  readonly nodeId: string;
  readonly clusterId: string;
  readonly role: NodeRole;
}
export interface NodeKey {
  readonly keyPem: string;
  /** PKCS#10 request for that key. */
  readonly csrPem: string;
}
export interface CertificateAuthority {
  createRoot(now: InstantMs): Promise<RootCa>;
  /** Certifies the request's key for `identity`. Throws ShoalError("invalid") on a broken request. */
  sign(
    root: RootCa,
    csrPem: string,
    identity: Identity,
    lifetimeMs: number,
    now: InstantMs,
  ): Promise<string>;
}
