import { test } from "vitest";
import { LoneNode } from "./lib/lone-node.ts";
test("x", async () => {
  const t0 = Date.now(); const lap = (w: string) => process.stderr.write(`${w} ${Date.now() - t0}\n`);
  const node = await LoneNode.create("a");
  lap("created");
  try {
    await node.start(); lap("started");
    const second = await LoneNode.create("b", 2, node); 
    try { await second.start(); lap("second");
    await node.init(); lap("init");
    await node.loadBusybox(); lap("busybox");
    const token = await node.docker("swarm", "join-token", "-q", "worker");
    await second.docker("swarm", "join", "--token", token, `${node.address}:2377`); lap("joined");
    await node.docker("network", "create", "-d", "overlay", "front");
    await node.docker("service", "create", "-d", "--no-resolve-image", "--constraint", "node.role==manager", "--network", "front", "--name", "web", "--replicas", "3", "busybox", "sleep", "1d");
    await node.converged("web", 3); lap("converged");
    console.error(await node.processes("sleep 1d"), node.cgroups(), await node.sandboxes());
    await node.stop(); lap("stopped");
    await node.start(); lap("again");
    await node.converged("web", 3); lap("conv");
    console.error(await node.docker("node", "ls"));
    } finally { await second.destroy(); }
  } finally { console.error(node.output.slice(-3000)); await node.destroy(); lap("destroyed"); }
});
