/** shoald's settings, from its command line. Flags are dockerd's where it has them. */
import { hostname as systemHostname } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { failure, messageOf } from "../lib/errors.ts";

export interface TlsFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}
export type ApiAddress =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };
export interface Config {
  readonly dataRoot: string;
  readonly execRoot: string;
  readonly hosts: readonly ApiAddress[];
  /** For tcp hosts; they are refused without. */
  readonly tls: TlsFiles | null;
  /** Below which containers' cgroups are made, from each hierarchy's mount. */
  readonly cgroupParent: string;
  readonly nodeName: string;
  readonly labels: readonly string[];
  readonly logLevel: "debug" | "info" | "warn" | "error";
  readonly coreBinary: string;
  readonly pidFile: string | null;
}

export const usage = `Usage:  shoald [OPTIONS]

A node of a Shoal swarm: the Docker Engine API, the container engine, and the swarm's agent and manager.

Options:
      --data-root string       Root directory of persistent state (default "/var/lib/shoal")
      --exec-root string       Root directory for run-time files (default "/run/shoal")
  -H, --host list              Where to listen: unix://PATH or tcp://ADDRESS:PORT (default unix:///run/shoal/shoal.sock)
      --tlsverify              Use TLS on tcp hosts and verify the client (always on)
      --tlscacert string       Trust client certificates signed by this CA
      --tlscert string         Path to the TLS certificate
      --tlskey string          Path to the TLS key
      --cgroup-parent string   Parent cgroup of containers (default "/shoal")
      --node-name string       Name of this node (default: the host's name)
      --label list             Set key=value labels of this engine
      --core string            Path to the native core (default: the checkout's native/target/release/shoal-core)
  -p, --pidfile string         Path of the daemon's PID file
  -D, --debug                  Log more
  -l, --log-level string       debug, info, warn or error (default "info")
  -v, --version                Print the version and quit
      --help                   Print usage
`;

/** The version that `shoald --version`, `docker version` and the native core are released under. */
export const version = "0.1.0";

/** Settings from arguments. Throws ShoalError("invalid") naming the flag; "help" and "version" when only those were asked. */
export function parseConfig(args: readonly string[]): Config | "help" | "version" {
  let values: ReturnType<typeof parse>["values"];
  try {
    const parsed = parse(args);
    values = parsed.values;
    if (parsed.positionals.length > 0) {
      throw failure("invalid", `shoald takes no arguments: "${parsed.positionals[0]}"`);
    }
  } catch (error) {
    throw failure("invalid", `${messageOf(error)}\nSee 'shoald --help'.`, error);
  }
  if (values.help) return "help";
  if (values.version) return "version";
  const execRoot = resolve(values["exec-root"] ?? "/run/shoal");
  const hosts = (values.host ?? [`unix://${join(execRoot, "shoal.sock")}`]).map(parseHost);
  const given = [values.tlscacert, values.tlscert, values.tlskey];
  const tls =
    values.tlscacert && values.tlscert && values.tlskey
      ? { ca: values.tlscacert, cert: values.tlscert, key: values.tlskey }
      : null;
  if (tls === null && (given.some(Boolean) || hosts.some((host) => host.kind === "tcp"))) {
    throw failure(
      "invalid",
      "a tcp host needs --tlscacert, --tlscert and --tlskey: the API gives root on this machine, so it is never served in the clear",
    );
  }
  const cgroupParent = values["cgroup-parent"] ?? "/shoal";
  if (!/^\/[A-Za-z0-9_./-]+$/.test(cgroupParent) || cgroupParent.split("/").includes("..")) {
    throw failure(
      "invalid",
      `invalid --cgroup-parent "${cgroupParent}": an absolute path without ".."`,
    );
  }
  const logLevel = values.debug ? "debug" : (values["log-level"] ?? "info");
  if (!isLevel(logLevel)) {
    throw failure("invalid", `invalid --log-level "${logLevel}": debug, info, warn or error`);
  }
  for (const label of values.label ?? []) {
    if (!/^[^=\s]+=.*$/.test(label))
      throw failure("invalid", `invalid --label "${label}": KEY=VALUE`);
  }
  return {
    dataRoot: resolve(values["data-root"] ?? "/var/lib/shoal"),
    execRoot,
    hosts,
    tls,
    cgroupParent,
    nodeName: values["node-name"] ?? systemHostname(),
    labels: values.label ?? [],
    logLevel,
    coreBinary: values.core ?? defaultCore(),
    pidFile: values.pidfile ?? null,
  };
}

function parse(args: readonly string[]) {
  return parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      "data-root": { type: "string" },
      "exec-root": { type: "string" },
      host: { type: "string", short: "H", multiple: true },
      tlsverify: { type: "boolean" },
      tlscacert: { type: "string" },
      tlscert: { type: "string" },
      tlskey: { type: "string" },
      "cgroup-parent": { type: "string" },
      "node-name": { type: "string" },
      label: { type: "string", multiple: true },
      core: { type: "string" },
      pidfile: { type: "string", short: "p" },
      debug: { type: "boolean", short: "D" },
      "log-level": { type: "string", short: "l" },
      version: { type: "boolean", short: "v" },
      help: { type: "boolean" },
    },
  });
}

function parseHost(text: string): ApiAddress {
  const unix = /^unix:\/\/(\/.+)$/.exec(text)?.[1];
  if (unix !== undefined) return { kind: "unix", path: unix };
  const tcp = /^tcp:\/\/([^:/]*):(\d{1,5})$/.exec(text);
  const port = Number(tcp?.[2]);
  if (tcp === null || port < 1 || port > 65_535) {
    throw failure("invalid", `invalid host "${text}": unix:///PATH or tcp://ADDRESS:PORT`);
  }
  return { kind: "tcp", host: tcp[1] || "0.0.0.0", port };
}

function isLevel(text: string): text is Config["logLevel"] {
  return ["debug", "info", "warn", "error"].includes(text);
}

/** dist/src/node/config.js is three folders below the checkout. */
function defaultCore(): string {
  const here = dirname(fileURLToPath(import.meta.url));
  return resolve(here, "../../../native/target/release/shoal-core");
}
