/** Limits of the worker, each with its unit. */

/** Tasks that prepare or start at once on one node; the others wait for their turn. */
export const startsAtOnceMax = 10;
/** First wait before a step that could not be done now is tried again; doubles up to the maximum. */
export const retryMsMin = 50;
export const retryMsMax = 2_000;
/** How long statuses are gathered before they are sent. */
export const statusBatchMs = 2;
/** A status that is not known to be stored is sent again after so long. */
export const statusResendMs = 5_000;
/** Statuses in one message. */
export const statusesPerMessageMax = 1_000;
/** First wait before managers are dialled again when none answered; doubles up to the maximum. */
export const reconnectMsMin = 100;
export const reconnectMsMax = 8_000;
/** A manager that has not answered for so long does not keep the next one from being dialled. */
export const dialStaggerMs = 200;
/** How long a manager may take to say welcome. */
export const welcomeTimeoutMs = 3_000;
/** Goodbyes that are followed at once to another manager, before back-off. */
export const redirectsMax = 3;
/** How often the node looks whether it has to describe itself anew. */
export const describeMs = 20_000;
/** How often the kernel's networks are read back and compared. */
export const networkReconcileMs = 60_000;
/** Operations in one call to the core. */
export const networkOpsMax = 20_000;
/** How long leaving the swarm waits for the kernel's networks to be gone; the next start removes what is left. */
export const leaveNetworksMs = 3_000;
