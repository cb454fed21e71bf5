/** A scenario narrows the mix of faults that a seed draws. */
import type { FaultMix } from "../fault-mix.ts";

export interface Scenario {
  readonly name: string;
  /** One line for --help. */
  readonly about: string;
  /** The mix of a run, from the one its seed drew. */
  mix(drawn: FaultMix): FaultMix;
}
