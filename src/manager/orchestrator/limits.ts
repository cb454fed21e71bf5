/** Limits of the orchestrator, each with its unit. */

/** What a task that was told to stop gets beyond its own stop grace before its successor starts anyway (spec/swarm.md 1.5, defect D9). */
export const stopMarginMs = 60_000;
/** A slot of an update that neither runs nor fails for so long counts as failed (defect D10). */
export const progressDeadlineMs = 600_000;
/** Tasks of one service that one decision may create; the rest follow in the next one. */
export const createsPerDecisionMax = 1_000;
/** A node that is down for so long has lost its tasks: they are orphaned, and what they hold is free. */
export const orphanAfterMs = 86_400_000;
/** Beyond the delay between slots, when the delay is not shorter than the monitoring period. */
export const monitorBeyondDelayMs = 1_000;
/** History of a slot when there is no cluster row to say. */
export const defaultTaskHistoryLimit = 5;
