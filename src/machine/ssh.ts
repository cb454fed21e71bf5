/** `shoal machine ssh`: a command or a shell in a machine, without an sshd. */

import { exitCode } from "./process.ts";
import type { Machines } from "./provision.ts";

/**
 * Runs `words` in the machine as ssh does: joined by spaces and read by the machine's shell; none gives a login shell.
 * The caller's input and output are the program's. Answers its exit code.
 */
export async function ssh(
  machines: Machines,
  name: string,
  words: readonly string[],
  tty: boolean,
): Promise<number> {
  const record = await machines.store.get(name);
  const argv =
    words.length === 0
      ? ["sh", "-c", 'exec "$(command -v bash || command -v sh)" -l']
      : ["sh", "-c", words.join(" ")];
  const child = machines
    .driver(record.driver)
    .spawn(record, argv, { stdio: ["inherit", "inherit", "inherit"], tty });
  return await exitCode(child);
}
