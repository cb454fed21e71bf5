/** Requests that must be refused: how they are written down, sent and compared. */
import { expect } from "vitest";
import type { LoneNode } from "./lone-node.ts";

/** A request, the status that it must get, and words of the answer. */
export type Case = readonly [
  what: string,
  method: string,
  path: string,
  body: unknown,
  status: number,
  words: string,
];

/** Sends each and compares; the node's state must stay what it was. */
export async function refuse(node: LoneNode, cases: readonly Case[]): Promise<void> {
  const before = await node.everything();
  const wrong: string[] = [];
  for (const [what, method, path, body, status, words] of cases) {
    const answer = await node.call(method, path, body);
    if (answer.status !== status || !answer.message.includes(words))
      wrong.push(`${what}: ${answer.status} ${answer.message}\n   not ${status} ${words}`);
  }
  expect(wrong.join("\n")).toBe("");
  expect(await node.everything()).toBe(before);
}

/** How dockerd passes on a refusal of what a spec says. */
export const invalid: string = "rpc error: code = InvalidArgument desc = ";

/** The body of a `service create` that is right but for what is given. */
export function service(over: object = {}, container: object = {}, task: object = {}): object {
  return {
    Name: "bad",
    TaskTemplate: { ContainerSpec: { Image: "busybox", ...container }, ...task },
    ...over,
  };
}
export function create(what: string, body: unknown, status: number, words: string): Case {
  return [`service create: ${what}`, "POST", "/services/create", body, status, words];
}
export function network(what: string, body: unknown, status: number, words: string): Case {
  return [`network create: ${what}`, "POST", "/networks/create", body, status, words];
}
/** The body of a `network create`. */
export function overlay(
  subnet: string | null,
  gateway: string | null = null,
  name = "bad",
): object {
  const config = {
    ...(subnet === null ? {} : { Subnet: subnet }),
    ...(gateway === null ? {} : { Gateway: gateway }),
  };
  return { Name: name, Driver: "overlay", IPAM: { Config: [config] } };
}
