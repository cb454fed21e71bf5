// Runs the kinds of tests one after the other, shows what they print, and adds up what they counted.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";

// Tests on a real kernel meet what nobody drew for them: a group of them that failed runs once more, alone. If it passes then it is
// named as unsteady, with its first output above: a bug to look for, in the test or in what it tests. More than these few are red.
const unsteadyMax = 3;

const kind = process.argv[2] ?? "all";
const sum = { passed: 0, failed: 0, skipped: 0 };
const broken = [];
const unsteady = [];

/** Runs a command and tells how long it took; shows what it prints, and keeps it where it is asked to. */
function run(name, command, args, { keep = false, ...options } = {}) {
  process.stdout.write(`\n== ${name}\n`);
  const started = process.hrtime.bigint();
  const output = keep ? "pipe" : "inherit";
  const result = spawnSync(command, args, { stdio: ["ignore", output, output], encoding: "utf8", maxBuffer: 1 << 28, ...options });
  if (keep) {
    process.stdout.write(result.stdout ?? "");
    process.stderr.write(result.stderr ?? "");
  }
  const seconds = Number(process.hrtime.bigint() - started) / 1e9;
  process.stdout.write(`== ${name}: ${result.status === 0 ? "ok" : "FAILED"} in ${seconds.toFixed(1)} s\n`);
  return result;
}

function check(name, command, args, options) {
  if (run(name, command, args, options).status !== 0) broken.push(name);
}

function add({ passed, failed, skipped }) {
  sum.passed += passed;
  sum.failed += failed;
  sum.skipped += skipped;
}

/** Runs each failed group once more; whether all of them passed. */
function again(groups, runGroup) {
  const still = groups.filter((group) => {
    const { status, counts } = runGroup(group);
    if (status !== 0 || counts.failed > 0 || counts.passed === 0) return true;
    unsteady.push(group);
    return false;
  });
  return still.length === 0;
}

function vitestOnce(name, args) {
  const folder = mkdtempSync(join(tmpdir(), "shoal-test-"));
  const file = join(folder, "result.json");
  const { status } = run(name, "node_modules/.bin/vitest", ["run", ...args, "--reporter=default", "--reporter=json", `--outputFile.json=${file}`]);
  try {
    const result = JSON.parse(readFileSync(file, "utf8"));
    const counts = { passed: result.numPassedTests, failed: result.numFailedTests, skipped: result.numPendingTests + result.numTodoTests };
    const groups = result.testResults.filter((one) => one.status === "failed").map((one) => relative(process.cwd(), one.name));
    return { status, counts, groups };
  } catch (error) {
    process.stdout.write(`${name} wrote no result: ${error}\n`);
    return { status: 1, counts: { passed: 0, failed: 0, skipped: 0 }, groups: [] };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function vitest(project, { onKernel = false } = {}) {
  const name = `vitest ${project}`;
  const first = vitestOnce(name, ["--project", project]);
  const { passed, failed, skipped } = first.counts;
  if (passed + failed + skipped === 0) broken.push(`${name} found no test`);
  const mended =
    first.status !== 0 && onKernel && first.groups.length > 0 && first.groups.length <= unsteadyMax &&
    again(first.groups, (file) => vitestOnce(`${name}, again: ${file}`, ["--project", project, file]));
  add(mended ? { passed: passed + failed, failed: 0, skipped } : first.counts);
  if (first.status !== 0 && !mended) broken.push(name);
}

function cargoOnce(name, words) {
  const result = run(name, "cargo", ["test", "--profile", "tested", "--locked", "--quiet", "--no-fail-fast", ...words], {
    cwd: "native",
    keep: true,
    env: { ...process.env, SHOAL_CORE: join(process.cwd(), "native/target/release/shoal-core") },
  });
  const counts = { passed: 0, failed: 0, skipped: 0 };
  for (const [, passed, failed, ignored] of (result.stdout ?? "").matchAll(/test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/g)) {
    counts.passed += Number(passed);
    counts.failed += Number(failed);
    counts.skipped += Number(ignored);
  }
  // Cargo's own words for a target that failed: `-p shoal-core --test pool`.
  const groups = [...(result.stderr ?? "").matchAll(/^ {4}`(-p [^`]+)`$/gm)].map(([, target]) => target);
  return { status: result.status, counts, groups };
}

function cargoTests() {
  const first = cargoOnce("cargo test", []);
  const { passed, failed, skipped } = first.counts;
  const mended =
    first.status !== 0 && first.groups.length > 0 && first.groups.length <= unsteadyMax &&
    again(first.groups, (target) => cargoOnce(`cargo test, again: ${target}`, target.split(" ")));
  add(mended ? { passed: passed + failed, failed: 0, skipped } : first.counts);
  if (first.status !== 0 && !mended) broken.push("cargo test");
}

const wants = (name) => kind === "all" || kind === name;
if (wants("unit")) {
  check("biome", "node_modules/.bin/biome", ["ci", "."]);
  check("tsc", "node_modules/.bin/tsc", ["-p", "."]);
  vitest("unit");
}
if (wants("sim")) vitest("sim");
if (wants("native")) {
  const cwd = "native";
  check("cargo fmt", "cargo", ["fmt", "--check"], { cwd });
  check("cargo clippy", "cargo", ["clippy", "--profile", "tested", "--locked", "--quiet", "--all-targets", "--", "-D", "warnings"], { cwd });
  cargoTests();
}
if (wants("cluster")) vitest("cluster", { onKernel: true });

if (sum.passed === 0) broken.push("no test ran");
if (unsteady.length > unsteadyMax) broken.push(`${unsteady.length} groups of tests are unsteady`);
for (const group of unsteady) process.stdout.write(`\nunsteady: ${group} failed and then passed when it ran again; see above for why\n`);
if (broken.length > 0) process.stdout.write(`\nred: ${broken.join("; ")}\n`);
process.stdout.write(`\n${sum.passed} passed, ${Math.max(sum.failed, broken.length > 0 ? 1 : 0)} failed, ${sum.skipped} skipped\n`);
process.exit(broken.length > 0 || sum.failed > 0 ? 1 : 0);
