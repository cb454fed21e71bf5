// Runs the kinds of tests one after the other, shows what they print, and adds up what they counted.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const kind = process.argv[2] ?? "all";
const sum = { passed: 0, failed: 0, skipped: 0 };
const broken = [];

function run(name, command, args, options = {}) {
  process.stdout.write(`\n== ${name}\n`);
  const started = process.hrtime.bigint();
  const result = spawnSync(command, args, { stdio: ["ignore", options.pipe ? "pipe" : "inherit", "inherit"], encoding: "utf8", maxBuffer: 1 << 28, ...options });
  if (options.pipe) process.stdout.write(result.stdout ?? "");
  const seconds = Number(process.hrtime.bigint() - started) / 1e9;
  process.stdout.write(`== ${name}: ${result.status === 0 ? "ok" : "FAILED"} in ${seconds.toFixed(1)} s\n`);
  if (result.status !== 0) broken.push(name);
  return result;
}

function vitest(project) {
  const folder = mkdtempSync(join(tmpdir(), "shoal-test-"));
  const file = join(folder, "result.json");
  run(`vitest ${project}`, "node_modules/.bin/vitest", ["run", "--project", project, "--reporter=default", "--reporter=json", `--outputFile.json=${file}`]);
  try {
    const result = JSON.parse(readFileSync(file, "utf8"));
    if (result.numTotalTests === 0) broken.push(`vitest ${project} found no test`);
    sum.passed += result.numPassedTests;
    sum.failed += result.numFailedTests;
    sum.skipped += result.numPendingTests + result.numTodoTests;
  } catch (error) {
    broken.push(`vitest ${project} wrote no result: ${error}`);
  }
  rmSync(folder, { recursive: true, force: true });
}

const wants = (name) => kind === "all" || kind === name;
if (wants("unit")) {
  run("biome", "node_modules/.bin/biome", ["ci", "."]);
  run("tsc", "node_modules/.bin/tsc", ["-p", "."]);
  vitest("unit");
}
if (wants("sim")) vitest("sim");
if (wants("native")) {
  const cwd = "native";
  run("cargo fmt", "cargo", ["fmt", "--check"], { cwd });
  run("cargo clippy", "cargo", ["clippy", "--profile", "tested", "--locked", "--quiet", "--all-targets", "--", "-D", "warnings"], { cwd });
  const tests = run("cargo test", "cargo", ["test", "--profile", "tested", "--locked", "--quiet"], {
    cwd,
    pipe: true,
    env: { ...process.env, SHOAL_CORE: join(process.cwd(), "native/target/release/shoal-core") },
  });
  for (const [, passed, failed, ignored] of (tests.stdout ?? "").matchAll(/test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/g)) {
    sum.passed += Number(passed);
    sum.failed += Number(failed);
    sum.skipped += Number(ignored);
  }
}
if (wants("cluster")) vitest("cluster");

if (sum.passed === 0) broken.push("no test ran");
if (broken.length > 0) process.stdout.write(`\nred: ${broken.join("; ")}\n`);
process.stdout.write(`\n${sum.passed} passed, ${Math.max(sum.failed, broken.length > 0 ? 1 : 0)} failed, ${sum.skipped} skipped\n`);
process.exit(broken.length > 0 || sum.failed > 0 ? 1 : 0);
