/** Where the daemon is: -H, DOCKER_HOST or SHOAL_HOST, with docker's TLS variables. */
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { failure, messageOf } from "../lib/errors.ts";

/** Of a daemon on this box (design section 7). */
export const defaultHost = "unix:///run/shoal/shoal.sock";
const defaultPort = 2375;
const defaultTlsPort = 2376;

export interface TlsMaterial {
  readonly ca: string;
  readonly cert: string | null;
  readonly key: string | null;
  /** False: encrypted, but the daemon's certificate is not checked. */
  readonly verify: boolean;
}
export type Endpoint =
  | { readonly kind: "unix"; readonly host: string; readonly path: string }
  | {
      readonly kind: "tcp";
      readonly host: string;
      readonly address: string;
      readonly port: number;
      readonly tls: TlsMaterial | null;
    };

export interface HostOptions {
  readonly host: string | null;
  readonly tls: boolean;
  readonly tlsVerify: boolean;
  readonly caFile: string | null;
  readonly certFile: string | null;
  readonly keyFile: string | null;
}

/** The endpoint that flags and environment name. Throws `invalid` with docker's words for an address that is none. */
export function resolveEndpoint(
  options: HostOptions,
  env: Readonly<Record<string, string | undefined>>,
): Endpoint {
  const host = options.host || env["DOCKER_HOST"] || env["SHOAL_HOST"] || defaultHost;
  if (host.startsWith("unix://")) {
    const path = host.slice("unix://".length);
    if (path === "") throw badHost(host);
    return { kind: "unix", host, path };
  }
  const match = /^(?:tcp:\/\/|https?:\/\/)?(\[[0-9a-fA-F:]+\]|[^:/]*)(?::(\d+))?\/?$/.exec(host);
  if (match === null || (host.includes("://") && !/^(tcp|https?):\/\//.test(host))) {
    throw badHost(host);
  }
  const verify = options.tlsVerify || Boolean(env["DOCKER_TLS_VERIFY"]);
  const withTls = verify || options.tls || Boolean(env["DOCKER_TLS"]);
  const address = (match[1] || "127.0.0.1").replace(/^\[|\]$/g, "");
  const port = match[2] === undefined ? (withTls ? defaultTlsPort : defaultPort) : Number(match[2]);
  if (port < 1 || port > 65535) throw badHost(host);
  const tls = withTls ? readTls(options, verify, env) : null;
  return { kind: "tcp", host: host.includes("://") ? host : `tcp://${host}`, address, port, tls };
}

function readTls(
  options: HostOptions,
  verify: boolean,
  env: Readonly<Record<string, string | undefined>>,
): TlsMaterial {
  const directory = env["DOCKER_CERT_PATH"] || join(homedir(), ".docker");
  const read = (file: string | null, name: string, needed: boolean): string | null => {
    const path = file ?? join(directory, name);
    try {
      return readFileSync(path, "utf8");
    } catch (error) {
      const isMissing = (error as NodeJS.ErrnoException).code === "ENOENT";
      if (isMissing && file === null && !needed) return null;
      throw failure(
        "invalid",
        `Failed to initialize: unable to resolve docker endpoint: open ${path}: ${isMissing ? "no such file or directory" : messageOf(error)}`,
        error,
      );
    }
  };
  return {
    ca: read(options.caFile, "ca.pem", verify) ?? "",
    cert: read(options.certFile, "cert.pem", false),
    key: read(options.keyFile, "key.pem", false),
    verify,
  };
}

function badHost(host: string): Error {
  return failure(
    "invalid",
    `Failed to initialize: unable to resolve docker endpoint: invalid bind address format: ${host}`,
  );
}
