/** Signals as users write them: with or without SIG, in any case, by number, by their older names (moby/sys/signal). */
import { failure } from "../lib/errors.ts";

const names: ReadonlySet<string> = new Set(
  (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU " +
    "URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
  ).split(" "),
);
/** Second names of some. */
const alsoCalled: ReadonlyMap<string, string> = new Map([
  ["CLD", "CHLD"],
  ["IOT", "ABRT"],
  ["POLL", "IO"],
]);
/** Linux has 64; of those of real time the C library keeps two for itself: RTMIN is 34. */
const signalMax = 64;
const realTimeSpan = 30;

/** `SIGTERM` for "term", "9" for "9". Throws ShoalError("invalid") in docker's words for what is no signal. */
export function signalName(text: string): string {
  if (/^\d{1,3}$/.test(text)) {
    const number = Number(text);
    if (number >= 1 && number <= signalMax) return String(number);
    throw failure("invalid", `invalid signal: ${text}`);
  }
  const upper = text.toUpperCase().replace(/^SIG/, "");
  const name = alsoCalled.get(upper) ?? upper;
  const offset = /^(?:RTMIN(?:\+(\d{1,2}))?|RTMAX(?:-(\d{1,2}))?)$/.exec(name);
  const isRealTime = offset !== null && Number(offset[1] ?? offset[2] ?? 0) <= realTimeSpan;
  if (names.has(name) || isRealTime) return `SIG${name}`;
  throw failure("invalid", `invalid signal: ${text}`);
}
