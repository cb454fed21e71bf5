/** How the checker says that a trace cannot be. */

/** An event that does not follow from those before it. */
export class ImpossibleStep extends Error {
  override readonly name = "ImpossibleStep";
}

/** Throws an ImpossibleStep that says `why`, unless `condition`. */
export function must(condition: boolean, why: string): asserts condition {
  if (!condition) throw new ImpossibleStep(why);
}
