/** Goal: a membership changes by the rules, and its bytes survive. Method: tables of (before, change, after or why not). */
import { describe, expect, test } from "vitest";
import {
  assertMembership,
  changeMembership,
  decodeMembershipChange,
  EMPTY_MEMBERSHIP,
  encodeMembershipChange,
  LEAVE_JOINT,
  members,
} from "./membership.ts";
import type { Membership, MembershipChange } from "./types.ts";

/** "1 2|1 3 l4 n5 auto": voters, outgoing, learners, next learners, auto leave. */
function parse(text: string): Membership {
  const [incoming = "", outgoing = ""] = text.split("|");
  const words = `${incoming} ${outgoing}`.split(" ").filter((word) => word !== "");
  const plain = (part: string): string[] => part.split(" ").filter((word) => /^\d/.test(word));
  const marked = (mark: string): string[] =>
    words.filter((word) => word.startsWith(mark) && /\d/.test(word)).map((word) => word.slice(1));
  return {
    voters: plain(incoming),
    outgoing: plain(outgoing),
    learners: marked("l"),
    learnersNext: marked("n"),
    autoLeave: words.includes("auto"),
  };
}

/** "v1 l2 r3": add voter 1, add learner 2, remove 3. */
function change(
  text: string,
  transition: MembershipChange["transition"] = "auto",
): MembershipChange {
  const kinds = { v: "add-voter", l: "add-learner", r: "remove" } as const;
  const changes = text
    .split(" ")
    .filter((word) => word !== "")
    .map((word) => ({ kind: kinds[word[0] as "v" | "l" | "r"], id: word.slice(1) }));
  return { changes, transition };
}

describe("changeMembership()", () => {
  test.each([
    ["", "v1", "1"],
    ["1", "v2", "1 2"],
    ["1", "v1", "1"],
    ["1 2", "r2", "1"],
    ["1 2", "r3", "1 2"],
    ["1", "l2", "1 l2"],
    ["1 l2", "v2", "1 2"],
    ["1 2", "l2", "1 l2"],
    ["1 l2", "r2", "1"],
    ["1", "v2 v3", "1 2 3|1 auto"],
    ["1 2 3", "r1 v4", "2 3 4|1 2 3 auto"],
    ["1 2 3", "l1 v4", "2 3 4|1 2 3 n1 auto"],
    ["1 2 3|1 auto", "", "1 2 3"],
    ["2 3|1 2 3 n1 auto", "", "2 3 l1"],
  ])("of %j by %j is %j", (before, by, after) => {
    const result = changeMembership(parse(before), change(by));
    expect(result).toEqual({ ok: true, membership: parse(after) });
  });

  test.each([
    ["1", "r1", "removed all voters"],
    ["1", "l1", "removed all voters"],
    ["1", "", "can't leave a non-joint config"],
    ["", "v1 v2", "can't make a zero-voter config joint"],
    ["1 2|1 auto", "v3", "can't apply simple config change in joint config"],
    ["1 2|1 auto", "v3 v4", "config is already joint"],
  ])("of %j by %j is refused: %s", (before, by, why) => {
    expect(changeMembership(parse(before), change(by))).toEqual({ ok: false, why });
  });

  test("through an explicit joint membership does not leave by itself", () => {
    const joint = changeMembership(parse("1"), change("v2", "joint-explicit"));
    expect(joint).toEqual({ ok: true, membership: parse("1 2|1") });
    expect(joint.ok && changeMembership(joint.membership, LEAVE_JOINT)).toEqual({
      ok: true,
      membership: parse("1 2"),
    });
  });

  test("refuses more members than a cluster may have", () => {
    const many = Array.from({ length: 32 }, (_, i) => `l${10 + i}`).join(" ");
    expect(changeMembership(parse("1"), change(many))).toMatchObject({ ok: false });
  });
});

test("members() names everybody once, in order", () => {
  expect(members(parse("3 1|2 1 l4"))).toEqual(["1", "2", "3", "4"]);
});

test.each(["1 l1", "1|1 l1", "1 n2", "1 auto"])("assertMembership() stops at %j", (text) => {
  expect(() => assertMembership(parse(text))).toThrow("must hold");
});

describe("encodeMembershipChange()", () => {
  test.each([
    change("v1"),
    change("v1 l2 r3", "joint-implicit"),
    change("", "joint-explicit"),
    LEAVE_JOINT,
  ])("is undone by decodeMembershipChange(): %j", (value) => {
    expect(decodeMembershipChange(encodeMembershipChange(value))).toEqual(value);
  });

  test.each([
    "",
    "{}",
    "[1]",
    '[2,"auto",[]]',
    '[1,"now",[]]',
    '[1,"auto",[["add","1"]]]',
    '[1,"auto",[["remove",""]]]',
    '[1,"auto",[["remove",1]]]',
    '[1,"auto",[7]]',
  ])("has no other form: %j decodes to null", (text) => {
    expect(decodeMembershipChange(new TextEncoder().encode(text))).toBeNull();
  });

  test("bytes that are no text decode to null", () => {
    expect(decodeMembershipChange(Uint8Array.of(0xff, 0xfe))).toBeNull();
  });
});

test("the empty membership holds", () => {
  expect(() => assertMembership(EMPTY_MEMBERSHIP)).not.toThrow();
  expect(members(EMPTY_MEMBERSHIP)).toEqual([]);
});
