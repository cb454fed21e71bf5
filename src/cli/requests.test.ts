/**
 * Goal: a command asks the daemon for what docker's command asks. Method: both run the same words against the same engine,
 * and every request that changes something is compared; the recordings of shared/data are compared where they are.
 */
import { execFile, execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Flags } from "./flag.ts";
import { createSpec } from "./service-spec.ts";
import { updateSpec } from "./service-update.ts";
import { type Asked, FixtureEngine, type Routes } from "./testing/fixture-engine.ts";
import { leaderNode, networkId, swarmRoutes, webService } from "./testing/swarm-fixture.ts";

const routes: Routes = {
  ...swarmRoutes,
  "POST /services/create": { status: 201, json: { ID: webService.ID, Warnings: null } },
  [`POST /services/${webService.ID}/update`]: { json: { Warnings: null } },
  "DELETE /services/web": { json: undefined },
  "POST /networks/create": { status: 201, json: { Id: networkId, Warning: "" } },
  "DELETE /networks/web-net": { status: 204, json: undefined },
  "DELETE /nodes/m9": { json: undefined },
  [`POST /nodes/${leaderNode.ID}/update`]: { json: undefined },
  "POST /swarm/init": { json: leaderNode.ID },
  "POST /swarm/join": { json: undefined },
  "POST /swarm/leave": { json: undefined },
  "POST /swarm/update": { json: undefined },
  "DELETE /images/busybox:latest": {
    json: [{ Untagged: "busybox:latest" }, { Deleted: "sha256:1" }],
  },
};

const cases: readonly string[] = [
  "service create -d --name web busybox",
  "service create -d --name web --replicas 3 --network web-net -e A=b -e C=d --label x=y --container-label q=r busybox sleep 1000 --not-a-flag",
  "service create --detach --mode global --constraint node.role==worker --placement-pref spread=node.labels.zone --hostname h --user 1:2 --workdir /w --group g busybox",
  "service create -d --limit-cpu 0.5 --limit-memory 64m --limit-pids 9 --reserve-cpu .25 --reserve-memory 1.5g --replicas-max-per-node 2 busybox",
  "service create -d --restart-condition on-failure --restart-delay 3s --restart-max-attempts 4 --restart-window 1m busybox",
  "service create -d --restart-max-attempts 4 busybox",
  "service create -d --update-parallelism 2 --update-delay 10s --update-failure-action rollback --update-monitor 2s --update-max-failure-ratio .2 --update-order start-first --rollback-parallelism 0 --rollback-order start-first busybox",
  "service create -d --update-delay 0s busybox",
  "service create -d --mount type=bind,src=/a,dst=/b,ro --mount type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770 --mount type=volume,source=v,target=/v busybox",
  "service create -d --stop-grace-period 3s --stop-signal SIGINT --read-only --tty --init --entrypoint /bin/sh --cap-add net_admin --cap-drop ALL --sysctl net.ipv4.ip_forward=1 --ulimit nofile=10:20 busybox -c x",
  "service create -d --dns 1.1.1.1 --dns-search s --dns-option ndots:1 --host h:1.2.3.4 --endpoint-mode dnsrr --log-driver json-file --log-opt max-size=1m busybox",
  "service create -d -p 8080:80 --publish published=9000,target=90,protocol=udp,mode=host --health-cmd true --health-interval 5s --health-retries 2 busybox",
  "service create -d --no-healthcheck --isolation default --oom-score-adj 100 --with-registry-auth=false busybox",
  "service create -d --network name=web-net,alias=a,alias=b busybox",
  "service update -d --image busybox:2 web",
  "service update -d --replicas 4 --env-add C=d --env-rm A --label-add n=m --label-rm a web",
  "service update -d --args x\\ y --force --limit-memory 32m --constraint-rm node.role==manager --constraint-add node.role==worker web",
  "service update -d --mount-rm /b --mount-add type=tmpfs,dst=/t --network-rm web-net --update-parallelism 3 web",
  "service update -d --publish-rm 80 --publish-add 81:81 --restart-condition none --stop-grace-period 1s --hostname z web",
  "service update -d --placement-pref-rm spread=node.labels.zone --placement-pref-add spread=node.labels.rack --host-add a:1.2.3.4 --dns-add 8.8.8.8 --group-add q web",
  "service update -d --container-label-add l=1 --read-only --rollback-monitor 3s --cap-add sys_time --ulimit-add nproc=5 --sysctl-add a.b=1 web",
  "service update -d --rollback web",
  "service rollback -d web",
  "service scale -d web=5",
  "service rm web",
  "network create -d overlay --attachable web-net",
  "network create -d overlay --subnet 10.9.0.0/24 --gateway 10.9.0.1 --ip-range 10.9.0.128/25 --label a=b -o encrypted=true --internal web-net",
  "network create web-net",
  "node update --label-add a=b --availability drain m10",
  "node update --label-rm zone --role worker m10",
  "node demote m10",
  "node promote m10",
  "node rm --force m9",
  "swarm init",
  "swarm init --advertise-addr 10.99.0.1 --default-addr-pool 10.20.0.0/16 --default-addr-pool-mask-length 26 --task-history-limit 3 --dispatcher-heartbeat 2s --snapshot-interval 99 --max-snapshots 1 --cert-expiry 48h --availability drain --data-path-port 4790",
  "swarm join --token SWMTKN-1-a-b --advertise-addr 10.0.0.9 10.0.0.1:2377",
  "swarm join-token --rotate -q worker",
  "swarm update --task-history-limit 7 --autolock=false",
  "swarm leave --force",
  "rmi busybox:latest",
];

const hasDocker = (() => {
  try {
    return execFileSync("docker", ["--version"], { encoding: "utf8" }).includes("28.");
  } catch {
    return false;
  }
})();

let engine: FixtureEngine;
beforeEach(async () => {
  engine = await FixtureEngine.open(routes);
});
afterEach(async () => {
  await engine.close();
});

describe.skipIf(!hasDocker)("requests beside docker 28 (skipped where it is not on PATH)", () => {
  it.for(cases)("%s", async (text) => {
    const words = text.split(/(?<!\\) /).map((word) => word.replace("\\ ", " "));
    const theirs = await docker(words);
    const asked = writes(engine.asked);
    const ours = await engine.run(...words);
    expect(writes(engine.asked).slice(asked.length)).toEqual(asked);
    expect({ code: ours.code, out: ours.out }).toEqual(theirs);
  });
});

const recordings = join(
  process.env["SHOAL_SHARED"] ?? join(import.meta.dirname, "../../../shared"),
  "data/engine-api/recordings",
);
describe.skipIf(!existsSync(recordings))(
  "the recordings (skipped: shared/data is not beside the checkout)",
  () => {
    it("service create sends what the recording holds, but for the platforms that the registry told docker", () => {
      const flags = new Flags({
        name: ["web"],
        replicas: ["2"],
        env: ["A=b"],
        mount: ["type=volume,source=v1,target=/v"],
        "health-cmd": ["true"],
        "limit-memory": ["64m"],
        constraint: ["node.role==manager"],
        "update-parallelism": ["1"],
        publish: ["8080:80"],
      });
      const recorded = body("svc-create", "/services/create") as {
        TaskTemplate: { ContainerSpec: { Image: string }; Placement: { Platforms?: unknown } };
      };
      delete recorded.TaskTemplate.Placement.Platforms;
      const image = recorded.TaskTemplate.ContainerSpec.Image;
      const context = { networks: [], fileEnv: [], env: {} };
      expect(createSpec(image, ["sleep", "1000"], flags, context)).toEqual(recorded);
    });

    it("service update adds to the spec that the daemon gave", () => {
      const lines = exchanges("svc-update");
      const got = lines.find(({ m, u }) => m === "GET" && u.includes("/services/web"));
      const spec = (JSON.parse(got?.rb ?? "{}") as typeof webService).Spec;
      const flags = new Flags({ "env-add": ["C=d"] });
      const context = { networksAdded: [], networksRemoved: new Set<string>(), env: {} };
      expect(updateSpec(spec, flags, context)).toEqual(body("svc-update", "/update"));
    });
  },
);

it("explain asks Shoal's own path and shows one line a task, with --verbose the nodes", async () => {
  await engine.close();
  engine = await FixtureEngine.open({
    "GET /shoal/v1/services/web/explain": {
      json: {
        Tasks: [
          {
            TaskID: "t2",
            TaskName: "web.2.t2",
            State: "pending",
            DesiredState: "running",
            NodeID: null,
            NodeName: null,
            Reason: "no node fits",
            Since: new Date(Date.now() - 65_000).toISOString(),
            Nodes: [
              {
                NodeID: "n1",
                NodeName: "m10",
                Fits: false,
                Filter: "constraint",
                Reason: "node.role==worker does not hold",
              },
            ],
          },
          {
            TaskID: "t1",
            TaskName: "web.1.t1",
            State: "running",
            DesiredState: "running",
            NodeID: "n1",
            NodeName: "m10",
            Reason: "fewest tasks of web",
            Since: new Date(Date.now() - 7_200_000).toISOString(),
            Nodes: [],
          },
        ],
      },
    },
  });
  const plain = await engine.run("service", "explain", "web");
  expect(plain).toEqual({
    code: 0,
    err: "",
    out: [
      "NAME      STATE     NODE      SINCE                WHY",
      "web.1     Running   m10       2 hours ago          fewest tasks of web",
      "web.2     Pending   -         about a minute ago   no node fits",
      "",
    ].join("\n"),
  });
  const verbose = await engine.run("service", "explain", "--verbose", "web");
  expect(verbose.out).toContain("constraint   node.role==worker does not hold");
});

it("an option that does not exist yet is refused by name before anything is asked", async () => {
  const refused = await engine.run("service", "create", "--secret", "s", "busybox");
  expect(refused).toEqual({
    code: 1,
    out: "",
    err: "service create: --secret is not supported by this version of shoal\n",
  });
  expect(engine.asked).toEqual([]);
});

function writes(asked: readonly Asked[]): Asked[] {
  return asked
    .filter(({ method }) => method !== "GET" && method !== "HEAD")
    .map(({ method, path, body: sent }) => ({
      method,
      path: path.replace("noprune=1&", ""),
      body: sent,
    }));
}

function docker(words: readonly string[]): Promise<{ code: number; out: string }> {
  return new Promise((resolve) => {
    const env = { PATH: process.env["PATH"] ?? "", DOCKER_HOST: engine.host, HOME: "/nonexistent" };
    execFile("docker", [...words], { env, encoding: "utf8" }, (error, out) => {
      resolve({ code: error === null ? 0 : Number(error.code), out });
    });
  });
}

function exchanges(name: string): { m: string; u: string; b: string; rb: string }[] {
  return readFileSync(join(recordings, `${name}.jsonl`), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { m: string; u: string; b: string; rb: string });
}
function body(name: string, path: string): unknown {
  const found = exchanges(name).find(({ m, u }) => m === "POST" && u.includes(path));
  return JSON.parse(found?.b ?? "null");
}
