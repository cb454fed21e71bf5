/** `inspect`: the objects as they are, indented by four, or one template for each. */
import { messageOf, ShoalError } from "../../lib/errors.ts";
import { type Cli, warn } from "../cli.ts";
import { goJson, parseTemplate } from "./template.ts";

/**
 * Gets every reference and prints what was found. Answers the exit code: 1 when one was not found, after printing the others.
 * `get` throws what the daemon said.
 */
export async function inspectAll(
  cli: Cli,
  references: readonly string[],
  format: string | null,
  get: (reference: string) => Promise<unknown>,
): Promise<number> {
  const template =
    format === null || format === "" || format === "json"
      ? null
      : parseTemplate(format.replaceAll("\\n", "\n").replaceAll("\\t", "\t"));
  const found: unknown[] = [];
  const errors: string[] = [];
  for (const reference of references) {
    try {
      found.push(await get(reference));
    } catch (error) {
      // The others are still shown, as docker does; a daemon that is not there ends it.
      errors.push(messageOf(error));
      if (!(error instanceof ShoalError) || error.code === "unavailable") break;
    }
  }
  if (template !== null) for (const value of found) cli.out.write(`${template(value)}\n`);
  else if (format === "json") cli.out.write(`${goJson(found)}\n`);
  else cli.out.write(`${indentedJson(found)}\n`);
  for (const error of errors) warn(cli, error);
  return errors.length > 0 ? 1 : 0;
}

/** As Go's json.Indent with four spaces. */
export function indentedJson(value: unknown): string {
  return JSON.stringify(value, null, 4);
}
