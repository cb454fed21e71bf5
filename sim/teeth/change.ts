/** One change of a source by its text, which must be there exactly once: so a bank of changes never goes stale in silence. */

/** What is to be changed, and into what. */
export interface Change {
  readonly find: string;
  readonly replace: string;
}

/** Why a change no longer fits `text`; null when it does. */
export function whyStale({ find, replace }: Change, text: string): string | null {
  const places = text.split(find).length - 1;
  if (places !== 1) return `its text is there ${places} times: ${find.trim()}`;
  return find === replace ? "it changes nothing" : null;
}

/** `text` with a change that fits it. */
export function changed({ find, replace }: Change, text: string): string {
  return text.replace(find, () => replace);
}
