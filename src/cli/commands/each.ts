/** The same to every argument: all get their turn, failures are told at the end. */
import { messageOf } from "../../lib/errors.ts";
import { type Cli, warn } from "../cli.ts";

/** Answers the exit code: 1 when one failed. */
export async function forEach(
  cli: Cli,
  items: readonly string[],
  work: (item: string) => Promise<void>,
): Promise<number> {
  let code = 0;
  for (const item of items) {
    try {
      await work(item);
    } catch (error) {
      warn(cli, messageOf(error));
      code = 1;
    }
  }
  return code;
}
