/** What this machine is, read from the kernel: for `docker info`, for placement, and for the overlay's MTU. */
import { readFile } from "node:fs/promises";
import { availableParallelism, machine, networkInterfaces, release, totalmem } from "node:os";

export interface HostInfo {
  readonly kernelVersion: string;
  /** As `uname -m`. */
  readonly architecture: string;
  readonly operatingSystem: string;
  readonly osVersion: string;
  readonly cpus: number;
  readonly memoryBytes: number;
}

/** Facts that do not change while the daemon runs. */
export async function hostInfo(): Promise<HostInfo> {
  const osRelease = await readFile("/etc/os-release", "utf8").catch(() => "");
  const field = (name: string) =>
    new RegExp(`^${name}="?([^"\n]*)"?$`, "m").exec(osRelease)?.[1] ?? "";
  return {
    kernelVersion: release(),
    architecture: machine(),
    operatingSystem: field("PRETTY_NAME") || "Linux",
    osVersion: field("VERSION_ID"),
    cpus: availableParallelism(),
    memoryBytes: totalmem(),
  };
}

/** Destinations of this namespace's IPv4 routes as CIDR, the default route left out (proc(5), /proc/net/route). */
export async function ipv4Routes(): Promise<readonly string[]> {
  const table = await readFile("/proc/net/route", "utf8");
  const routes = table
    .split("\n")
    .slice(1)
    .flatMap((line) => {
      const fields = line.trim().split(/\s+/);
      const [, destination, , , , , , mask] = fields;
      if (destination === undefined || mask === undefined || mask === "00000000") return [];
      const bits = Number.parseInt(mask, 16).toString(2).replaceAll("0", "").length;
      return [`${littleEndianAddress(destination)}/${bits}`];
    });
  return [...new Set(routes)];
}

/** The MTU of the interface that has `address`; 1500 when none has it. */
export async function mtuOf(address: string): Promise<number> {
  const usual = 1500;
  for (const [name, addresses] of Object.entries(networkInterfaces())) {
    if (!(addresses ?? []).some((entry) => entry.address === address)) continue;
    const mtu = await interfaceMtu(name);
    if (mtu !== null) return mtu;
  }
  return usual;
}

/** By `ip`, because /sys may show another network namespace's interfaces. */
async function interfaceMtu(name: string): Promise<number | null> {
  const { execFile } = await import("node:child_process");
  return await new Promise((resolve) => {
    execFile("ip", ["-o", "link", "show", "dev", name], { timeout: 2_000 }, (error, out) => {
      const mtu = error ? null : /\bmtu (\d+)/.exec(out)?.[1];
      resolve(mtu === null || mtu === undefined ? null : Number(mtu));
    });
  });
}

function littleEndianAddress(hex: string): string {
  const value = Number.parseInt(hex, 16);
  return [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff).join(".");
}
