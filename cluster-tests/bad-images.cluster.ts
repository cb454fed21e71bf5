/** Goal: a broken archive leaves nothing behind, and what cannot run says why. How: archives cut, spoiled and evil, loaded and imported over the API. */
import { mkdir, open, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { must, until } from "./lib/command.ts";
import { dockerArchive, ociArchive } from "./lib/images.ts";
import { LoneNode } from "./lib/lone-node.ts";

let busybox: string;
let manager: LoneNode;

beforeAll(async () => {
  manager = await LoneNode.create("badi");
  await manager.start();
  await manager.init();
  busybox = await manager.loadBusybox();
}, 60_000);
afterAll(async () => {
  await manager?.destroy();
}, 60_000);

test("images: broken archives leave nothing, another architecture's task is rejected with the reason", async () => {
  const folder = manager.folder;
  const files = join(folder, "images");
  await mkdir(files);
  const good = await readFile(await dockerArchive(files, busybox, "good:1"));
  const spoiled = await readFile(await ociArchive(files, busybox, "spoiled:1", { spoil: true }));
  // A root file system with a file that climbs out of it.
  const evil = join(files, "evil.tar");
  await writeFile(join(files, "x"), "x");
  await must("tar", [
    "-C",
    files,
    "--transform",
    "s,^x$,../../../../../../tmp/shoal-evil,",
    "-P",
    "-cf",
    evil,
    "x",
  ]);
  const evilImage = await readFile(await dockerArchive(files, evil, "evil:1"));
  const link = join(files, "link.tar");
  await symlink("/var/tmp", join(files, "out"));
  await must("tar", ["-C", files, "-cf", link, "out"]);
  await rm(join(files, "out"));
  await mkdir(join(files, "out"));
  await writeFile(join(files, "out", "shoal-evil"), "x");
  await must("tar", ["-C", files, "-rf", link, "out/shoal-evil"]);
  const linkImage = await readFile(await dockerArchive(files, link, "link:1"));
  const before = await manager.everything();
  const held = async (): Promise<string> =>
    await must("sh", [
      "-c",
      `cd ${manager.dataRoot}; find images layers -not -type d | grep -v lock | sort; ls images/tmp layers/sha256`,
    ]);
  const heldBefore = await held();
  const tar = { headers: { "Content-Type": "application/x-tar" } };
  const wrong: string[] = [];
  for (const [what, path, bytes, words] of [
    ["truncated", "/images/load", good.subarray(0, good.length / 2), "Tar archive is truncated"],
    ["cut in the header", "/images/load", good.subarray(0, 700), "Tar archive is truncated"],
    ["no tar", "/images/load", Buffer.from("this is no archive ".repeat(100)), "archive"],
    ["empty", "/images/load", Buffer.alloc(0), "archive"],
    ["a tar that is no image", "/images/load", await readFile(busybox), "manifest.json"],
    ["wrong digest", "/images/load", spoiled, "the archive is damaged"],
    ["leaves the root", "/images/load", evilImage, "leaves the root"],
    [
      "import of garbage",
      "/images/create?fromSrc=-&repo=x",
      Buffer.from("garbage ".repeat(200)),
      "it is not a tar archive, or it is damaged",
    ],
    ["import of nothing", "/images/create?fromSrc=-&repo=x", Buffer.alloc(0), "archive is empty"],
    [
      "import that leaves the root",
      "/images/create?fromSrc=-&repo=x",
      await readFile(evil),
      "leaves the root",
    ],
    [
      "import of a bad name",
      "/images/create?fromSrc=-&repo=Bad%20Name",
      await readFile(busybox),
      "invalid reference format",
    ],
  ] as const) {
    const answer = await manager.call("POST", path, bytes, tar);
    const failed = answer.status >= 400 || answer.text.includes("errorDetail");
    if (!failed || !answer.text.includes(words))
      wrong.push(`${what}: ${answer.status} ${answer.text}\n   not ${words}`);
    if (answer.status >= 500)
      wrong.push(`${what}: ${answer.status} ${answer.text}: the archive is wrong, not the daemon`);
  }
  expect(wrong.join("\n")).toBe("");
  // A link that leads out is allowed in an image; what is written through it must not be there outside.
  const through = await manager.call("POST", "/images/load", linkImage, tar);
  expect(through.text).toBeTruthy();
  for (const path of ["/tmp/shoal-evil", "/var/tmp/shoal-evil"])
    await expect(open(path)).rejects.toThrow("ENOENT");
  await manager.call("DELETE", "/images/link:1");
  expect(await manager.everything()).toBe(before);
  expect(await held()).toBe(heldBefore);

  const other = await readFile(await dockerArchive(files, busybox, "other:1", "s390x"));
  expect((await manager.call("POST", "/images/load", other, tar)).status).toBe(200);
  await manager.docker(
    "service",
    "create",
    "-d",
    "--no-resolve-image",
    "--restart-condition",
    "none",
    "--constraint",
    "node.role==manager",
    "--name",
    "alien",
    "other:1",
    "sleep",
    "1d",
  );
  await manager.docker(
    "service",
    "create",
    "-d",
    "--no-resolve-image",
    "--restart-condition",
    "none",
    "--constraint",
    "node.role==manager",
    "--name",
    "unknown",
    "nobody/has-this:1",
    "sleep",
    "1d",
  );
  for (const [name, words] of [
    ["alien", "s390x"],
    ["unknown", "No such image: nobody/has-this:1"],
  ] as const) {
    const error = await until(`the task of ${name} to be rejected`, async () => {
      const [task] = await manager.tasks(name);
      return task?.Status.State === "rejected" ? (task.Status.Err ?? "") : null;
    });
    expect(error).toContain(words);
  }
});
