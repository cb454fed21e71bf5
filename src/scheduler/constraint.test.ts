/** The grammar and the meaning of constraints, one row each (spec/swarm.md section 1.7). */
import { describe, expect, test } from "vitest";
import { aDescription, aNode } from "../model/testing/rows.ts";
import { firstUnmet, formatConstraint, nodeMatches, parseConstraints } from "./constraint.ts";

const node = aNode("node1", {
  spec: {
    name: "",
    labels: { zone: "Berlin", Case: "x" },
    role: "manager",
    availability: "active",
  },
  description: aDescription({ hostname: "Host-1", engineLabels: { disk: "ssd" } }),
  address: "10.1.2.3",
  role: "worker",
});

test.each<[string, string, string, string]>([
  ["node.role==manager", "node.role", "==", "manager"],
  [" node.role  !=  worker ", "node.role", "!=", "worker"],
  ["node.labels.a_b-c.d == x y", "node.labels.a_b-c.d", "==", "x y"],
  ["node.ip==10.0.0.0/8", "node.ip", "==", "10.0.0.0/8"],
  ["_x==*", "_x", "==", "*"],
  ["node.id==a.*(b)?+[c]\\^$|/", "node.id", "==", "a.*(b)?+[c]\\^$|/"],
])("%j is %s %s %s", (text, key, operator, value) => {
  expect(parseConstraints([text])).toEqual([{ key, operator, value }]);
});

test.each<[string, string]>([
  ["node.role", "constraint expected one operator from ==, !="],
  ["node.role=manager", "constraint expected one operator from ==, !="],
  ["", "constraint expected one operator from ==, !="],
  ["node.role>manager", "constraint expected one operator from ==, !="],
  ["a==b", "key 'a' is invalid"],
  ["1node==b", "key '1node' is invalid"],
  ["no de==b", "key 'no de' is invalid"],
  ["a!=b==c", "key 'a!=b' is invalid"],
  ["==b", "key '' is invalid"],
  ["node.id==", "value '' is invalid"],
  ["node.id== ", "value '' is invalid"],
  ['node.id=="x"', "value '\"x\"' is invalid"],
  ["node.id==a,b", "value 'a,b' is invalid"],
  ["node.id==a@b", "value 'a@b' is invalid"],
  ["node.id==ä", "value 'ä' is invalid"],
  ["node.id===x", "value '=x' is invalid"],
])("%j is refused: %s", (text, message) => {
  expect(() => parseConstraints(["node.id==x", text])).toThrow(message);
});

test.each<[string, boolean]>([
  ["node.id==NODE1", true],
  ["NODE.ID==node1", true],
  ["node.id!=node1", false],
  ["node.hostname==host-1", true],
  ["node.hostname!=other", true],
  ["node.ip==10.1.2.3", true],
  ["node.ip!=10.1.2.3", false],
  ["node.ip==10.1.0.0/16", true],
  ["node.ip!=10.1.0.0/16", false],
  ["node.ip==10.2.0.0/16", false],
  ["node.ip==10.1.2.999", false],
  ["node.ip!=10.1.2.999", false],
  ["node.ip==10.1.0.0/33", false],
  ["node.ip!=10.1.0.0/33", false],
  ["node.ip==2001:db8::2", false],
  ["node.ip!=2001:db8::2", true],
  ["node.ip!=2001:::2", false],
  ["node.role==worker", true], // the observed role, not the wished one
  ["node.role==Manager", false],
  ["node.platform.os==LINUX", true],
  ["node.platform.arch==x86_64", true],
  ["node.platform.arch!=arm64", true],
  ["node.labels.zone==berlin", true],
  ["Node.Labels.zone==Berlin", true],
  ["node.labels.Zone==Berlin", false],
  ["node.labels.Zone!=Berlin", true],
  ["node.labels.case==x", false],
  ["node.labels.toString!=x", true],
  ["engine.labels.disk==SSD", true],
  ["engine.labels.none==x", false],
  ["engine.labels.none!=x", true],
  ["node.labels.==x", false],
  ["something.else==x", false],
  ["something.else!=x", false],
])("%s on the node is %s", (text, expected) => {
  expect(nodeMatches(parseConstraints([text]), node)).toBe(expected);
});

describe("several constraints", () => {
  test("must all hold; the first that does not is named", () => {
    const all = parseConstraints(["node.id==node1", "node.role!=worker", "node.id==x"]);
    const unmet = firstUnmet(all, node);
    expect(unmet === null ? null : formatConstraint(unmet)).toBe("node.role!=worker");
    expect(nodeMatches([], node)).toBe(true);
  });

  test("on a node that has said nothing of itself see empty values", () => {
    const silent = aNode("node2", { description: null });
    expect(nodeMatches(parseConstraints(["node.hostname!=x"]), silent)).toBe(true);
    expect(nodeMatches(parseConstraints(["engine.labels.x==y"]), silent)).toBe(false);
  });
});
