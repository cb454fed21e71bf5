/** Every limit of the provisioner, with its unit. */

/** How long a machine may take from the start of its pid 1 until its API answers. A loaded box is slow: generous. */
export const apiReadyMs = 60_000;
/** Without a shoald for this long, a machine that starts has failed. On a loaded box the way into its control groups alone takes seconds. */
export const daemonAbsentMs = 6_000;
/** A machine whose shoald started more often than this without answering has failed. */
export const daemonStartsMax = 5;
/** How often a waiting step looks again. */
export const pollMs = 20;
/** One try of `GET /_ping`. */
export const pingMs = 2_000;
/** How long `ls` waits for one machine before it says Timeout (docker-machine has the same). */
export const listTimeoutMs = 10_000;
/** How long the daemon has, after SIGTERM, to end by itself. */
export const stopGraceMs = 10_000;
/** How long pid 1 has to end after its daemon ended, before SIGKILL. */
export const initGraceMs = 1_000;
/** How long the kernel may take to end a killed machine's processes. */
export const killWaitMs = 15_000;
/** How long one command waits for another that holds the same lock. */
export const lockWaitMs = 120_000;
/** How long pid 1 may take to say who it is. */
export const bootMs = 15_000;
/** Longest path of a unix socket (sockaddr_un has 108 bytes, one is the terminator). */
export const socketPathBytesMax = 107;
/** Longest machine name: it is a host name label. */
export const machineNameLengthMax = 63;
/** How many times joining is tried again while the cluster has no leader or changes its members. */
export const joinTriesMax = 60;
/** Between two tries to join. */
export const joinRetryMs = 250;
/** Longest piece of a machine's log that an error message repeats. */
export const logTailBytesMax = 2_000;
/** Machines that `cluster create` starts at the same time. */
export const startsAtOnceMax = 5;
