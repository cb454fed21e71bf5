/** Finding a container by what a user calls it: id, name, or a unique beginning of the id. */
import { failure } from "../lib/errors.ts";
import type { Container } from "../model/container.ts";

/** The container. Throws not-found, or invalid when a prefix fits several, in docker's words. */
export function findByReference(containers: readonly Container[], reference: string): Container {
  const name = reference.startsWith("/") ? reference.slice(1) : reference;
  const exact = containers.find((item) => item.id === reference || item.name === name);
  if (exact !== undefined) return exact;
  const found = reference === "" ? [] : containers.filter((item) => item.id.startsWith(reference));
  const [only, another] = found;
  if (only === undefined) throw failure("not-found", `No such container: ${reference}`);
  if (another !== undefined) {
    throw failure("invalid", `Multiple IDs found with provided prefix: ${reference}`);
  }
  return only;
}
