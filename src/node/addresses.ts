/** Which of this machine's addresses others should use, in docker's words where it cannot be told (moby daemon/cluster/listen_addr.go). */

import { isIPv4 } from "node:net";
import { networkInterfaces } from "node:os";
import { failure } from "../lib/errors.ts";

export const defaultClusterPort = 2377;

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** `--listen-addr`: HOST, INTERFACE, HOST:PORT or INTERFACE:PORT; empty is 0.0.0.0:2377. */
export function resolveListen(text: string): ListenAddress {
  if (text === "") return { host: "0.0.0.0", port: defaultClusterPort };
  const { host, port } = split(text, defaultClusterPort);
  const address = host === "0.0.0.0" ? host : toAddress(host, "listen");
  return { host: address, port };
}

/** `--advertise-addr`: as above; empty is the one address that there is. */
export function resolveAdvertise(text: string, listen: ListenAddress): ListenAddress {
  if (text !== "") {
    const { host, port } = split(text, listen.port);
    return { host: toAddress(host, "advertise"), port };
  }
  if (listen.host !== "0.0.0.0") return { host: listen.host, port: listen.port };
  return { host: onlyAddress(), port: listen.port };
}

/** `--data-path-addr`: an interface or address; empty is the advertised one. */
export function resolveDataPath(text: string, advertise: ListenAddress): string {
  return text === "" ? advertise.host : toAddress(text, "data path");
}

function split(text: string, defaultPort: number): ListenAddress {
  const match = /^([^:]*)(?::(\d{1,5}))?$/.exec(text);
  const port = match?.[2] === undefined ? defaultPort : Number(match[2]);
  if (match === null || !match[1] || port < 1 || port > 65_535) {
    throw failure(
      "invalid",
      `invalid address "${text}": must be an IPv4 address or network interface, with an optional port`,
    );
  }
  return { host: match[1], port };
}

function toAddress(text: string, what: string): string {
  if (isIPv4(text)) {
    if (text === "0.0.0.0")
      throw failure(
        "invalid",
        `${what} address must be a non-zero IP address or network interface (with optional port number)`,
      );
    return text;
  }
  const found = ipv4Of(text);
  if (found.length === 0) {
    throw failure(
      "invalid",
      `${what} address must be an IP address or network interface: "${text}" is neither, or has no IPv4 address`,
    );
  }
  if (found.length > 1) {
    throw failure(
      "invalid",
      `interface ${text} has more than one IPv4 address (${found.join(" and ")}): specify one`,
    );
  }
  return found[0] as string;
}

function ipv4Of(name: string): string[] {
  return (networkInterfaces()[name] ?? [])
    .filter((address) => address.family === "IPv4")
    .map((address) => address.address);
}

function onlyAddress(): string {
  const found = Object.entries(networkInterfaces()).flatMap(([name, addresses]) =>
    (addresses ?? [])
      .filter((address) => address.family === "IPv4" && !address.internal)
      .map((address) => ({ name, address: address.address })),
  );
  const [first, second] = found;
  if (first === undefined) {
    throw failure(
      "invalid",
      "could not find the system's IP address - specify one with --advertise-addr",
    );
  }
  if (second !== undefined) {
    const how =
      first.name === second.name
        ? `multiple addresses on interface ${first.name} (${first.address} and ${second.address})`
        : `multiple addresses on different interfaces (${first.address} on ${first.name} and ${second.address} on ${second.name})`;
    throw failure(
      "invalid",
      `could not choose an IP address to advertise since this system has ${how} - specify one with --advertise-addr`,
    );
  }
  return first.address;
}
