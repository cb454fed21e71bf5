/** Builds the library that makes a manager's syncs fail, and proves that Node's own sync goes through it. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { checkout, must } from "../lib/command.ts";

/** The environment of a daemon whose syncs fail while `control` is there. */
export function failingSyncEnvironment(library: string, control: string): readonly string[] {
  return [`LD_PRELOAD=${library}`, `RAFT_FAULTS_CONTROL=${control}`];
}

/** Compiles the library into `folder`; answers its path. Throws when a sync of Node does not go through it. */
export async function buildFailingSync(folder: string): Promise<string> {
  const source = join(checkout, "cluster-tests/raft-faults/failing-sync.c");
  const library = join(folder, "failing-sync.so");
  await must("cc", ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source, "-ldl"]);
  const control = join(folder, "probe-control");
  await writeFile(control, "once");
  const log = join(folder, "probe/swarm/raft-probe");
  const script = `
    const fs = require("fs");
    fs.mkdirSync(${JSON.stringify(log)}, { recursive: true });
    const fd = fs.openSync(${JSON.stringify(join(log, "file"))}, "w");
    fs.fdatasync(fd, (first) => fs.fdatasync(fd, (second) => console.log(first?.code, second?.code)));
  `;
  const environment = failingSyncEnvironment(library, control);
  const said = await must("env", [...environment, process.execPath, "-e", script]);
  if (said !== "EIO undefined") {
    throw new Error(`a sync of ${process.execPath} does not go through ${library}: ${said}`);
  }
  return library;
}
