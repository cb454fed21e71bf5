/**
 * Goal: what docker's users see is what they know. Method: the real docker command (28.2.2 here) and ours ask the same
 * fixture engine the same things, and their outputs and exit codes are compared as they are.
 */
import { execFile, execFileSync } from "node:child_process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FixtureEngine } from "./testing/fixture-engine.ts";
import { swarmRoutes } from "./testing/swarm-fixture.ts";

const cases: readonly string[] = [
  "node ls",
  "node ls -q",
  "node ls --format {{.ID}}|{{.Hostname}}|{{.Self}}|{{.ManagerStatus}}|{{.TLSStatus}}",
  "node ls --format json",
  "node inspect m10",
  "node inspect --pretty m10",
  "node inspect --pretty m9",
  "node inspect -f {{.Spec.Role}}:{{json_.Spec.Labels}} m10 m9",
  "node inspect nope",
  "node ps m10",
  "service ls",
  "service ls -q",
  "service ls --format {{.Name}}:{{.Replicas}}:{{.Mode}}:{{.Image}}:{{.Ports}}",
  "service ls --format table_{{.Name}}\\t{{.Mode}}",
  "service ls --format json",
  "service ps web",
  "service ps -q web",
  "service ps --no-trunc web",
  "service ps --no-resolve web",
  "service ps --format {{.Name}}|{{.CurrentState}}|{{.Error}} web",
  "service ps nope",
  "service inspect web",
  "service inspect --pretty web",
  "service inspect --pretty agent",
  "service inspect -f {{range_.Spec.TaskTemplate.ContainerSpec.Args}}[{{.}}]{{end}} web",
  "service inspect nope",
  "service logs nope",
  "network ls",
  "network ls --no-trunc",
  "network ls -q",
  "network ls --format {{.Name}}:{{.IPv6}}:{{.Internal}}:{{.Labels}}:{{.CreatedAt}}",
  "network ls --format json",
  "network inspect web-net",
  "network inspect nope",
  "network inspect web-net -f {{range_.IPAM.Config}}{{.Subnet}}{{end}}",
  "images",
  "images -q",
  "images --no-trunc",
  "images --digests",
  "image ls --format {{.Repository}}:{{.Tag}}:{{.Size}}",
  "ps",
  "ps -q",
  "ps --no-trunc",
  "ps --format {{.ID}}|{{.Names}}|{{.Networks}}|{{.Labels}}",
  "top x",
  "swarm join-token worker",
  "swarm join-token -q manager",
  "swarm join-token boss",
  "swarm ca",
  "swarm init --cert-expiry x",
  "service create --limit-memory x img",
  "service create --limit-cpu x img",
  "service create --mount type=x img",
  "service create --mode foo img",
  "service create --replicas 2 --mode global img",
  "service create --endpoint-mode",
  "service scale web=x",
  "service scale web",
  "service update",
  "node update --foo",
  "info -f {{.Swarm.NodeID}}",
  "inspect --type foo x",
];

const hasDocker = (() => {
  try {
    return execFileSync("docker", ["--version"], { encoding: "utf8" }).includes("28.");
  } catch {
    return false;
  }
})();

let engine: FixtureEngine;
beforeAll(async () => {
  engine = await FixtureEngine.open(swarmRoutes);
});
afterAll(async () => {
  await engine.close();
});

describe.skipIf(!hasDocker)("beside docker 28 (skipped where it is not on PATH)", () => {
  it.for(cases)("%s", async (text) => {
    // An underscore inside a template stands for its space.
    const words = text
      .split(" ")
      .map((word) => (word.includes("{{") ? word.replaceAll("_", " ") : word));
    const theirs = await docker(words);
    const ours = await engine.run(...words);
    // The names of one image come out of a map in docker: in any order.
    // "Pending 30 seconds ago": a second may pass between the two.
    const inOrder = (out: string) =>
      (words[0] ?? "").startsWith("image")
        ? out.split("\n").sort()
        : out.replace(/\d+ seconds ago/g, "SS seconds ago");
    expect({ ...ours, out: inOrder(ours.out), err: asDocker(ours.err) }).toEqual({
      ...theirs,
      out: inOrder(theirs.out),
    });
  });
});

/** Our own name stands where docker's does. */
function asDocker(text: string): string {
  return text
    .replaceAll("'shoal ", "'docker ")
    .replaceAll("  shoal ", "  docker ")
    .replace(/^shoal:/, "docker:");
}

function docker(words: readonly string[]): Promise<{ code: number; out: string; err: string }> {
  return new Promise((resolve) => {
    const env = { PATH: process.env["PATH"] ?? "", DOCKER_HOST: engine.host, HOME: "/nonexistent" };
    execFile("docker", [...words], { env, encoding: "utf8" }, (error, out, err) => {
      resolve({ code: error === null ? 0 : Number(error.code), out, err });
    });
  });
}
