/**
 * How a netns machine comes to life: cgroups joined first, then namespaces, then its own mounts, then pid 1.
 *
 * The order matters. A process must be in the machine's cgroup before it enters the namespaces, /sys must not be mounted
 * again (the cgroup mounts below it would vanish), and pid 1 reads its own number in the box's /proc before it mounts its own.
 */
import { readFileSync } from "node:fs";

const sighup = 1;
const sigterm = 15;

/** Writes its pid into every file before `--`, then becomes the program after it. Arguments: FILE… -- PROGRAM ARG…. */
export const joinCgroupsScript = `while [ "$1" != "--" ]; do echo $$ > "$1" || exit 125; shift; done; shift; exec "$@"`;

/**
 * What pid 1 of a machine does before it becomes the init program. Arguments: name, identity file, run directory, PROGRAM ARG….
 * It says who it is when all is made; what fails before is found by its cgroup.
 *
 * Namespaces that others have pinned under /run/netns came along as copies of mounts: they are let go, or they could not be freed
 * while this machine lives. /run and /dev/shm are its own; /run/shoal is a directory of the machine's state, which is on a real
 * file system, so that overlay uppers may live there.
 */
export const bootScript = `set -e
name=$1 identity=$2 run=$3; shift 3
read -r stat < /proc/self/stat
read -r boot < /proc/sys/kernel/random/boot_id
for pinned in /run/netns/*; do umount -l "$pinned" 2>/dev/null || true; done
mount -t proc -o nosuid,nodev,noexec proc /proc
hostname "$name"
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /run
mkdir -p /run/shoal /run/netns /run/lock
mount --bind "$run" /run/shoal
if [ -d /dev/shm ]; then mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /dev/shm; fi
printf '%s\\n%s\\n' "$boot" "$stat" > "$identity.new"
mv "$identity.new" "$identity"
exec "$@"
`;

/** Who pid 1 is: enough to never mistake another process for it. */
export interface InitIdentity {
  readonly bootId: string;
  readonly pid: number;
  /** Clock ticks since the box started (field 22 of proc_pid_stat(5)). */
  readonly startTicks: string;
}

/** Reads what bootScript wrote. Null when it is not whole. */
export function parseIdentity(text: string): InitIdentity | null {
  const [bootId = "", stat = "", end] = text.split("\n");
  const parsed = parseStat(stat);
  if (end === undefined || bootId === "" || parsed === null) return null;
  return { bootId, pid: parsed.pid, startTicks: parsed.startTicks };
}

/** Whether that very process lives: same boot, same start, and not a zombie. */
export function isAlive(identity: InitIdentity): boolean {
  try {
    const bootId = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    const stat = parseStat(readFileSync(`/proc/${identity.pid}/stat`, "utf8"));
    return (
      bootId === identity.bootId &&
      stat !== null &&
      stat.startTicks === identity.startTicks &&
      stat.state !== "Z" &&
      stat.state !== "X"
    );
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    if (code === "ENOENT" || code === "ESRCH") return false;
    throw error;
  }
}

/** Whether SIGTERM would reach the process: caught, or blocked to be read from a descriptor (proc_pid_status(5)). */
export function takesSigterm(identity: InitIdentity): boolean {
  if (!isAlive(identity)) return false;
  const status = readFileSync(`/proc/${identity.pid}/status`, "utf8");
  const has = (name: string, signal: number): boolean => {
    const mask = new RegExp(`^${name}:\\s*([0-9a-f]+)$`, "m").exec(status)?.[1] ?? "0";
    return (BigInt(`0x${mask}`) & (1n << BigInt(signal - 1))) !== 0n;
  };
  // A program that blocks every signal does so for an instant, while it starts a thread or a child.
  return has("SigCgt", sigterm) || (has("SigBlk", sigterm) && !has("SigBlk", sighup));
}

function parseStat(
  line: string,
): { readonly pid: number; readonly state: string; readonly startTicks: string } | null {
  // The name is in parentheses and may hold anything, so fields count from the last one.
  const match = /^(\d+) \(.*\) (.+)$/s.exec(line.trim());
  const fields = match?.[2]?.split(" ") ?? [];
  const state = fields[0];
  const startTicks = fields[19];
  if (match === null || state === undefined || startTicks === undefined) return null;
  return { pid: Number(match[1]), state, startTicks };
}
