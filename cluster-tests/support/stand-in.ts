/** A pid 1 and a daemon that behave as shoal-core init and shoald do towards the provisioner, for tests of the provisioner alone. */
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** As `shoal-core init --keep -- CMD`: stays after CMD ended; passes SIGTERM on to it and ends when it has ended. */
const initScript = `#!/bin/sh
while [ "$1" != "--" ]; do shift; done
shift
stop=0
trap 'stop=1; kill -TERM $child 2>/dev/null' TERM
"$@" &
child=$!
while kill -0 $child 2>/dev/null; do wait $child; done
while [ $stop = 0 ]; do sleep 1000 & wait $!; done
`;

/** As shoald: serves the few requests of the provisioner on the socket after -H, keeps its swarm under --data-root. */
const daemonScript = `#!/usr/bin/env node
const http = require("node:http"), fs = require("node:fs"), path = require("node:path");
const argument = (name) => process.argv[process.argv.indexOf(name) + 1];
const socket = argument("-H").replace("unix://", "");
const file = path.join(argument("--data-root"), "swarm.json");
const swarm = () => (fs.existsSync(file) ? JSON.parse(fs.readFileSync(file, "utf8")) : null);
if (process.env.STAND_IN_FAILS === "1") { console.error("stand-in: refuses to start"); process.exit(9); }
fs.mkdirSync(path.join(argument("--exec-root"), "netns"), { recursive: true });
fs.rmSync(socket, { force: true });
http.createServer((request, response) => {
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    const route = request.url.replace(/^\\/v[0-9.]+/, "");
    const answer = (code, body) => { response.writeHead(code, { "content-type": "application/json" }); response.end(JSON.stringify(body)); };
    if (route === "/_ping") { response.end("OK"); return; }
    if (route === "/version") { answer(200, { Version: "0.1.0", ApiVersion: "1.50" }); return; }
    if (route === "/info") { answer(200, { ID: "x", Swarm: { LocalNodeState: swarm() ? "active" : "inactive", ControlAvailable: true, NodeID: "n1" } }); return; }
    if (route === "/swarm/init") { fs.writeFileSync(file, Buffer.concat(pieces)); answer(200, "n1"); return; }
    if (route === "/swarm/join") { fs.writeFileSync(file, Buffer.concat(pieces)); answer(200, null); return; }
    if (route === "/swarm") { answer(200, { JoinTokens: { Worker: "SWMTKN-1-w", Manager: "SWMTKN-1-m" } }); return; }
    answer(404, { message: "page not found" });
  });
}).listen(socket);
process.on("SIGTERM", () => process.exit(0));
`;

export interface StandIn {
  readonly init: readonly string[];
  readonly daemon: readonly string[];
}

/** Writes both programs into a directory and says how to run them. */
export function writeStandIn(directory: string): StandIn {
  const init = join(directory, "init.sh");
  const daemon = join(directory, "daemon.cjs");
  writeFileSync(init, initScript);
  writeFileSync(daemon, daemonScript);
  chmodSync(init, 0o755);
  chmodSync(daemon, 0o755);
  return { init: [init], daemon: [daemon] };
}
