/**
 * The network of netns machines: one switch namespace for each storage path, a veth from each machine into its bridge.
 *
 * Nothing is made in the namespace of the box itself: both ends of a veth are born where they belong.
 * Namespaces are pinned under /run/netns, so that `nsenter --net=/run/netns/NAME` reaches them; `ip netns add` is not used,
 * because it would leave /run/netns mounted on itself.
 */
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmdirSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { failure } from "../../lib/errors.ts";
import { must, run } from "../process.ts";

const pinDirectory = "/run/netns";

/** The bridge inside the switch namespace. */
export const bridgeName = "br0";
/** The machine's interface inside the machine. */
export const machineInterface = "eth0";

/** Name of the switch namespace of a storage path. */
export function switchName(storageHash: string): string {
  return `shsw-${storageHash}`;
}
/** Name of a machine's namespace. */
export function machineNetnsName(storageHash: string, index: number): string {
  return `shm-${storageHash}-${index}`;
}
/** Name of the switch's end of a machine's veth: by index, for an interface name has at most 15 bytes. */
export function portName(index: number): string {
  return `v${index}`;
}
/** File to give to nsenter. */
export function netnsFile(name: string): string {
  return join(pinDirectory, name);
}
/** Fixed for a machine's life, so that its neighbours find it again at once after a power cut. */
export function machineMac(storageHash: string, index: number): string {
  const bytes = [
    0x02,
    0x53,
    Number.parseInt(storageHash.slice(0, 2), 16),
    Number.parseInt(storageHash.slice(2, 4), 16),
    Math.floor(index / 256) % 256,
    index % 256,
  ];
  return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}

/** Makes the switch when it is not there. `gateway` is its address, with the prefix length of the subnet. */
export async function makeSwitch(
  name: string,
  gateway: string,
  prefixLength: number,
): Promise<void> {
  await pin(name);
  const links = await inside(name, ["ip", "-o", "link", "show", "dev", bridgeName]);
  if (links.code === 0) return;
  await batch(name, `making switch ${name}`, [
    "link set lo up",
    `link add ${bridgeName} type bridge forward_delay 0`,
    `addr add ${gateway}/${prefixLength} dev ${bridgeName}`,
    `link set ${bridgeName} up`,
  ]);
}

export interface MachinePort {
  readonly switchName: string;
  readonly netns: string;
  readonly index: number;
  readonly address: string;
  readonly prefixLength: number;
  readonly gateway: string;
  readonly mac: string;
}

/** A fresh namespace for a machine, connected to the switch and addressed. What was there before is taken away. */
export async function plugIn(port: MachinePort): Promise<void> {
  await unplug(port.switchName, port.netns, port.index);
  await pin(port.netns);
  const outer = portName(port.index);
  await batch(port.switchName, `connecting ${port.netns} to ${port.switchName}`, [
    `link add name ${outer} type veth peer name ${machineInterface} address ${port.mac} netns ${netnsFile(port.netns)}`,
    `link set ${outer} master ${bridgeName} up`,
  ]);
  await batch(port.netns, `addressing ${port.netns}`, [
    "link set lo up",
    `addr add ${port.address}/${port.prefixLength} dev ${machineInterface}`,
    `link set ${machineInterface} up`,
    `route add default via ${port.gateway}`,
  ]);
}

/** Takes a machine's port and namespace away. Fine when they are not there. */
export async function unplug(switchNetns: string, netns: string, index: number): Promise<void> {
  if (isPinned(switchNetns)) {
    const removed = await inside(switchNetns, ["ip", "link", "del", portName(index)]);
    if (removed.code !== 0 && !removed.stderr.includes("Cannot find device")) {
      throw failure(
        "internal",
        `removing ${portName(index)} from ${switchNetns}: ${removed.stderr.trim()}`,
      );
    }
  }
  await unpin(netns);
}

/** Takes a pinned namespace away. Fine when it is not there. */
export async function unpin(name: string): Promise<void> {
  const file = netnsFile(name);
  if (!existsSync(file)) return;
  while (isPinned(name)) await must(`unpinning ${file}`, ["umount", "--lazy", file]);
  await rm(file, { force: true });
  try {
    rmdirSync(pinDirectory);
  } catch (error) {
    // Others' namespaces, or somebody's mount: the directory is theirs then.
    const code = (error as NodeJS.ErrnoException).code ?? "";
    if (!["ENOTEMPTY", "EBUSY", "ENOENT"].includes(code)) throw error;
  }
}

/** Whether a namespace is mounted on its file (a crash can leave the file alone). */
export function isPinned(name: string): boolean {
  const file = netnsFile(name);
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .some((line) => line.split(" ")[4] === file);
}

/** Runs a program of this box in the named namespace, and nothing but its network changed. */
export async function inside(
  name: string,
  argv: readonly string[],
  input: string = "",
): Promise<{ readonly code: number; readonly stdout: string; readonly stderr: string }> {
  return await run(["nsenter", `--net=${netnsFile(name)}`, "--", ...argv], input);
}

async function batch(name: string, doing: string, lines: readonly string[]): Promise<void> {
  await must(
    doing,
    ["nsenter", `--net=${netnsFile(name)}`, "--", "ip", "-batch", "-"],
    `${lines.join("\n")}\n`,
  );
}

async function pin(name: string): Promise<void> {
  if (isPinned(name)) return;
  mkdirSync(pinDirectory, { recursive: true, mode: 0o755 });
  closeSync(openSync(netnsFile(name), "a", 0o444));
  await must(`making network namespace ${name}`, [
    "unshare",
    `--net=${netnsFile(name)}`,
    "--",
    "true",
  ]);
}
