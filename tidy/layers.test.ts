/** Goal: the table of who may import whom (ARCHITECTURE.md) holds. How: every import of every file is read as text. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { expect, test } from "vitest";

/** Each folder of src/ and the folders it may import, leaves first. A folder may always import itself. */
const layers: Record<string, readonly string[]> = {
  lib: [],
  model: ["lib"],
  raft: ["lib"],
  store: ["lib", "model"],
  scheduler: ["lib", "model", "store"],
  "overlay-net": ["lib", "model", "wire"],
  image: ["lib", "model"],
  wire: ["lib", "model", "raft", "store"],
  manager: ["lib", "model", "raft", "store", "scheduler", "overlay-net", "wire", "api"],
  engine: ["lib", "model", "overlay-net", "image", "wire", "api"],
  worker: ["lib", "model", "overlay-net", "wire", "engine", "image"],
  api: ["lib", "model"],
  machine: ["lib", "model"],
  io: [
    "lib",
    "model",
    "raft",
    "store",
    "wire",
    "manager",
    "worker",
    "engine",
    "overlay-net",
    "image",
    "api",
  ],
  node: [
    "lib",
    "model",
    "raft",
    "store",
    "wire",
    "scheduler",
    "overlay-net",
    "manager",
    "engine",
    "worker",
    "api",
    "image",
    "io",
  ],
  cli: ["lib", "model", "machine", "node"],
};
/** Paths whose code only decides: no node builtins, no packages, no clock, no chance. */
const pure =
  /^(lib|model|raft|store|scheduler|overlay-net)\/|^manager\/(orchestrator|allocator|placement)\/|^manager\/dispatcher\/assignments/;
/** Packages that belong to one folder. */
const owners: Record<string, string> = {
  fastify: "api",
  commander: "cli",
  ws: "io",
  level: "io",
  pino: "io",
  "modern-tar": "io",
  "@peculiar/x509": "io",
  "reflect-metadata": "io",
  msgpackr: "wire",
};
/** Interfaces that other rooms may import from a room that they otherwise do not: contracts, types only. */
const contracts = new Set(["api/backend.ts", "store/types.ts"]);

const files = readdirSync("src", { recursive: true, encoding: "utf8" }).filter(
  (file) =>
    file.endsWith(".ts") && !/\.(test|bench)\.ts$/.test(file) && !file.includes("/testing/"),
);

function importsOf(file: string): { target: string; typeOnly: boolean }[] {
  const text = readFileSync(join("src", file), "utf8");
  const found = text.matchAll(
    /^(?:import|export)(\s+type)?\b[^"'`;]*?\bfrom\s+"([^"]+)"|^import\s+"([^"]+)"/gm,
  );
  return [...found].map(([, type, from, bare]) => ({
    target: from ?? bare ?? "",
    typeOnly: type !== undefined,
  }));
}

/** Says why `file` should not import `target`, or nothing. */
function objection(file: string, target: string, typeOnly: boolean): string | undefined {
  const own = file.split("/")[0] ?? "";
  if (target.startsWith(".")) {
    const path = normalize(join(dirname(file), target));
    const other = path.split("/")[0] ?? "";
    const allowed = other === own || layers[own]?.includes(other);
    if (!allowed) return `${file} -> ${target}: ${own}/ does not import ${other}/`;
    const contractOnly = other === "api" && own !== "node" && own !== "api";
    return contractOnly && !(typeOnly && contracts.has(path))
      ? `${file} -> ${target}: only the types of api/backend.ts are a contract`
      : undefined;
  }
  if (pure.test(file)) return `${file} -> ${target}: this code only decides; hand the value in`;
  const owner = Object.entries(owners).find(
    ([name]) => target === name || target.startsWith(`${name}/`),
  )?.[1];
  return owner === undefined || owner === own
    ? undefined
    : `${file} -> ${target}: lives in ${owner}/`;
}

test("imports follow the layers", () => {
  expect(files.length, "the check must see the source").toBeGreaterThan(100);
  const objections = files.flatMap((file) =>
    importsOf(file).flatMap(({ target, typeOnly }) => objection(file, target, typeOnly) ?? []),
  );
  expect(objections).toEqual([]);
});

test("every folder of src has a layer", () => {
  const folders = new Set(
    files.filter((file) => file.includes("/")).map((file) => file.split("/")[0] ?? ""),
  );
  expect([...folders].filter((folder) => !(folder in layers))).toEqual([]);
});

test("pure code has no clock, no chance and no promise", () => {
  const forbidden =
    /\b(Date\.now|new Date\(\)|Math\.random|setTimeout|setInterval|performance\.|process\.|async |await |Promise<)/;
  const seen = files.filter((file) => pure.test(file) && !file.startsWith("lib/"));
  expect(seen.length).toBeGreaterThan(30);
  // raft/types.ts, store/types.ts and image's contracts say what others promise.
  const found = seen
    .filter((file) => !/\/types\.ts$/.test(file))
    .flatMap((file) =>
      readFileSync(join("src", file), "utf8")
        .split("\n")
        .flatMap((line, index) => {
          const code = line.replace(/\/\/.*$|^\s*\*.*$|\/\*.*\*\//, "");
          return forbidden.test(code) ? [`${file}:${index + 1}: ${line.trim()}`] : [];
        }),
    );
  expect(found).toEqual([]);
});
