import { appendFile, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { ContainerLogQuery } from "../engine/container-logs.ts";
import { readJsonFileLog } from "./json-file-log.ts";

let directory: string;
let path: string;
beforeEach(async () => {
  directory = await mkdtemp("/tmp/shoal-log-");
  path = join(directory, "c-json.log");
});
afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

function line(number: number, stream = "stdout"): string {
  const time = `2024-01-01T00:00:${String(number).padStart(2, "0")}.000000001Z`;
  return `${JSON.stringify({ log: `line ${number}\n`, stream, time })}\n`;
}
function lines(from: number, to: number): string {
  let text = "";
  for (let number = from; number <= to; number++) text += line(number);
  return text;
}
function query(over: Partial<ContainerLogQuery> = {}): ContainerLogQuery {
  return {
    follow: null,
    stdout: true,
    stderr: true,
    tail: -1,
    sinceNs: null,
    untilNs: null,
    signal: new AbortController().signal,
    ...over,
  };
}
async function read(over: Partial<ContainerLogQuery> = {}): Promise<readonly number[]> {
  const found: number[] = [];
  for await (const item of readJsonFileLog(path, query(over))) {
    found.push(Number(new TextDecoder().decode(item.line).slice(5)));
  }
  return found;
}

test("a log that is not there yet is empty", async () => {
  expect(await read()).toEqual([]);
});

test.each([
  [-1, [1, 2, 3, 4, 5, 6, 7]],
  [0, []],
  [1, [7]],
  [3, [5, 6, 7]],
  [4, [4, 5, 6, 7]],
  [99, [1, 2, 3, 4, 5, 6, 7]],
])("tail %i over rotated files", async (tail, want) => {
  await writeFile(`${path}.2`, lines(1, 2));
  await writeFile(`${path}.1`, lines(3, 4));
  await writeFile(path, lines(5, 7));
  expect(await read({ tail })).toEqual(want);
});

test("tail of a file of many chunks", async () => {
  const text = Array.from({ length: 5_000 }, (_, at) => line(at % 60)).join("");
  await writeFile(path, text);
  expect(await read({ tail: 3_000 })).toHaveLength(3_000);
});

test("streams and times", async () => {
  await writeFile(path, line(1) + line(2, "stderr") + line(3));
  expect(await read({ stdout: false })).toEqual([2]);
  const at = (second: number) => BigInt(Date.UTC(2024, 0, 1, 0, 0, second)) * 1_000_000n;
  expect(await read({ sinceNs: at(2) })).toEqual([2, 3]);
  expect(await read({ sinceNs: at(2) + 2n })).toEqual([3]);
  expect(await read({ untilNs: at(2) + 1n })).toEqual([1, 2]);
});

test("half a line and noise are left out", async () => {
  await writeFile(path, `${line(1)}\0\0{"log":\n${line(2)}{"log":"half`);
  expect(await read()).toEqual([1, 2]);
});

test("following sees new lines, every rotation, and the end", async () => {
  let end: () => void = () => {};
  const follow = new Promise<void>((resolve) => {
    end = resolve;
  });
  const found: number[] = [];
  let seen: () => void = () => {};
  const until = async (count: number) => {
    while (found.length < count) {
      await new Promise<void>((resolve) => {
        seen = resolve;
      });
    }
  };
  const done = (async () => {
    for await (const item of readJsonFileLog(path, query({ follow }))) {
      found.push(Number(new TextDecoder().decode(item.line).slice(5)));
      seen();
    }
  })();
  await writeFile(path, line(1));
  await until(1);
  // A line that comes in two parts is one line.
  const second = line(2);
  await appendFile(path, second.slice(0, 10));
  await appendFile(path, second.slice(10));
  await until(2);
  // Two rotations before the reader may look.
  await appendFile(path, line(3));
  await rename(path, `${path}.1`);
  await writeFile(path, line(4));
  await rename(`${path}.1`, `${path}.2`);
  await rename(path, `${path}.1`);
  await writeFile(path, line(5));
  await until(5);
  await appendFile(path, line(6));
  end();
  await done;
  expect(found).toEqual([1, 2, 3, 4, 5, 6]);
});

test("following ends with its reader", async () => {
  await writeFile(path, line(1));
  const controller = new AbortController();
  const found: string[] = [];
  const follow = new Promise<void>(() => {});
  for await (const item of readJsonFileLog(path, query({ follow, signal: controller.signal }))) {
    found.push(item.time);
    controller.abort();
  }
  expect(found).toHaveLength(1);
});
