import { expect, test } from "vitest";
import { ShoalError } from "../../lib/errors.ts";
import type { Cluster } from "../../model/cluster.ts";
import { createToken, digestOfToken, roleOfToken } from "./join-token.ts";

const digest = "d".repeat(50);
const ids = (letter: string) => ({ below: () => 0, id: () => letter.repeat(25) });
const worker = createToken(digest, ids("w"));
const manager = createToken(digest, ids("m"));
const cluster = { rootCa: { digest }, joinTokens: { worker, manager } } as unknown as Cluster;

test("roleOfToken tells the role from which token it is", () => {
  expect(roleOfToken(cluster, worker)).toBe("worker");
  expect(roleOfToken(cluster, ` ${manager}\n`)).toBe("manager");
});

test("roleOfToken refuses each wrong token in its own words", () => {
  // How: a table of spoiled tokens and what the refusal must say.
  const table: [string, string, string][] = [
    ["SWMTKN-1-nonsense", "invalid", "invalid join token"],
    ["", "invalid", "invalid join token"],
    [createToken("e".repeat(50), ids("w")), "unauthorized", "another cluster"],
    [createToken(digest, ids("x")), "unauthorized", "secret matches neither"],
  ];
  for (const [token, code, words] of table) {
    try {
      roleOfToken(cluster, token);
      expect.unreachable(token);
    } catch (error) {
      expect(error).toBeInstanceOf(ShoalError);
      expect((error as ShoalError).code).toBe(code);
      expect((error as ShoalError).message).toContain(words);
    }
  }
});

test("digestOfToken is the part that pins the CA", () => {
  expect(digestOfToken(worker)).toBe(digest);
});
