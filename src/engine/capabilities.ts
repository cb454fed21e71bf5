/** Which capabilities a container gets: docker's fourteen, with what is added and dropped. */
import { failure } from "../lib/errors.ts";

/** Docker's default set (moby oci/caps/defaults.go). */
export const defaultCapabilities: readonly string[] = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FSETID",
  "CAP_FOWNER",
  "CAP_MKNOD",
  "CAP_NET_RAW",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SETFCAP",
  "CAP_SETPCAP",
  "CAP_NET_BIND_SERVICE",
  "CAP_SYS_CHROOT",
  "CAP_KILL",
  "CAP_AUDIT_WRITE",
];
/** All that Linux knows (capability.h), as of 5.9. */
const allCapabilities: readonly string[] = [
  ...defaultCapabilities,
  "CAP_DAC_READ_SEARCH",
  "CAP_LINUX_IMMUTABLE",
  "CAP_NET_BROADCAST",
  "CAP_NET_ADMIN",
  "CAP_IPC_LOCK",
  "CAP_IPC_OWNER",
  "CAP_SYS_MODULE",
  "CAP_SYS_RAWIO",
  "CAP_SYS_PTRACE",
  "CAP_SYS_PACCT",
  "CAP_SYS_ADMIN",
  "CAP_SYS_BOOT",
  "CAP_SYS_NICE",
  "CAP_SYS_RESOURCE",
  "CAP_SYS_TIME",
  "CAP_SYS_TTY_CONFIG",
  "CAP_LEASE",
  "CAP_AUDIT_CONTROL",
  "CAP_MAC_OVERRIDE",
  "CAP_MAC_ADMIN",
  "CAP_SYSLOG",
  "CAP_WAKE_ALARM",
  "CAP_BLOCK_SUSPEND",
  "CAP_AUDIT_READ",
  "CAP_PERFMON",
  "CAP_BPF",
  "CAP_CHECKPOINT_RESTORE",
];

/** The capabilities after adding and dropping, `ALL` included (moby oci/caps/utils.go TweakCapabilities). Throws invalid for an unknown one. */
export function capabilitiesOf(add: readonly string[], drop: readonly string[]): readonly string[] {
  const added = add.map(fullName);
  const dropped = new Set(drop.map(fullName));
  const base = dropped.has(all) ? [] : added.includes(all) ? allCapabilities : defaultCapabilities;
  const wanted = new Set([...base.filter((name) => !dropped.has(name)), ...added]);
  wanted.delete(all);
  return [...wanted];
}

const all = "ALL";

function fullName(name: string): string {
  const upper = name.toUpperCase();
  if (upper === all) return all;
  const full = upper.startsWith("CAP_") ? upper : `CAP_${upper}`;
  if (!allCapabilities.includes(full)) {
    throw failure("invalid", `invalid capability: ${JSON.stringify(name)}`);
  }
  return full;
}
