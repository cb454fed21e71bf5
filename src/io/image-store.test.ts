import { execFileSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { packTar } from "modern-tar";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { ImageStore } from "../image/image-store.ts";
import { failure } from "../lib/errors.ts";
import { silentLog } from "../lib/log.ts";
import { openImageStore } from "./image-store.ts";
import { systemClock } from "./system-clock.ts";

let root: string;
let store: ImageStore;

beforeEach(async () => {
  root = await mkdtemp("/tmp/shoal-images-");
  store = await openStore();
});
afterEach(async () => {
  await rm(root, { recursive: true, force: true });
});

/** As the core does it, but slower: tar(1), and the digest of the tar. */
async function unpack(archive: string, diffId: string | null, destination: string) {
  const bytes = await readFile(archive);
  const plain = bytes[0] === 0x1f ? execFileSync("gzip", ["-dc", archive]) : bytes;
  const found = `sha256:${sum(plain)}`;
  if (diffId !== null && diffId !== found) {
    throw failure("invalid", `layer digest ${found} does not match ${diffId}`);
  }
  await mkdir(destination, { recursive: true });
  execFileSync("tar", ["-xf", archive, "-C", destination]);
  return { diffId: found, bytes: plain.byteLength };
}

function openStore(): Promise<ImageStore> {
  return openImageStore({
    dataRoot: root,
    unpack,
    clock: systemClock,
    log: silentLog,
    machine: "x86_64",
  });
}

function sum(bytes: Uint8Array | string): string {
  return createHash("sha256").update(bytes).digest("hex");
}
function file(name: string, body: string | Uint8Array) {
  const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
  return { header: { name, size: bytes.byteLength, type: "file" as const }, body: bytes };
}
async function layerOf(text: string): Promise<Uint8Array> {
  return await packTar([
    { header: { name: "etc/", size: 0, type: "directory" } },
    file("etc/passwd", text),
  ]);
}
interface Made {
  readonly archive: Uint8Array;
  readonly id: string;
  readonly diffId: string;
}

async function dockerArchive(
  tags: readonly string[],
  layer: Uint8Array,
  over: { layer?: Uint8Array; config?: object; diffIds?: readonly string[]; name?: string } = {},
): Promise<Made> {
  const diffId = `sha256:${sum(layer)}`;
  const config = JSON.stringify({
    os: "linux",
    architecture: "amd64",
    config: { Cmd: ["sh"] },
    rootfs: { type: "layers", diff_ids: over.diffIds ?? [diffId] },
    ...over.config,
  });
  const name = over.name ?? `${sum(config)}.json`;
  const manifest = [{ Config: name, RepoTags: tags, Layers: ["l/layer.tar"] }];
  const archive = await packTar([
    file(name, config),
    file("l/layer.tar", over.layer ?? layer),
    file("manifest.json", JSON.stringify(manifest)),
  ]);
  return { archive, id: `sha256:${sum(config)}`, diffId };
}

async function ociArchive(name: string, layer: Uint8Array, spoil = false): Promise<Made> {
  const diffId = `sha256:${sum(layer)}`;
  const packed = gzipSync(layer);
  const config = JSON.stringify({
    os: "linux",
    architecture: "amd64",
    rootfs: { type: "layers", diff_ids: [diffId] },
  });
  const blob = (bytes: Uint8Array | string) => ({
    mediaType: "application/octet-stream",
    digest: `sha256:${sum(bytes)}`,
    size: Buffer.byteLength(bytes),
  });
  const manifest = JSON.stringify({ config: blob(config), layers: [blob(packed)] });
  const entry = {
    ...blob(manifest),
    annotations: { "io.containerd.image.name": name },
  };
  const stored = spoil ? Buffer.concat([packed.subarray(0, -1), Buffer.from([1])]) : packed;
  const archive = await packTar([
    file("oci-layout", '{"imageLayoutVersion":"1.0.0"}'),
    file("index.json", JSON.stringify({ manifests: [entry] })),
    file(`blobs/sha256/${sum(manifest)}`, manifest),
    file(`blobs/sha256/${sum(config)}`, config),
    file(`blobs/sha256/${sum(packed)}`, stored),
  ]);
  return { archive, id: `sha256:${sum(config)}`, diffId };
}

async function* chunks(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.byteLength; at += 1_000) yield bytes.subarray(at, at + 1_000);
}
async function load(archive: Uint8Array): Promise<readonly string[]> {
  const lines: string[] = [];
  for await (const line of store.load(chunks(archive))) lines.push(line);
  return lines;
}
const quietly = { force: false, prune: true };

/** Nothing on disk but what belongs to `images`. */
async function expectOnly(images: number, layers: number): Promise<void> {
  expect(await readdir(join(root, "images", "tmp"))).toEqual([]);
  expect(await readdir(join(root, "images", "records"))).toHaveLength(images);
  expect(await readdir(join(root, "layers", "sha256"))).toHaveLength(layers);
}

describe("load", () => {
  test("docker-archive, plain and gzip, found by name and id after a restart", async () => {
    const made = await dockerArchive(["a:1", "host:5000/b:2"], await layerOf("root:x:0:0::/:\n"));
    expect(await load(made.archive)).toEqual(["Loaded image: a:1", "Loaded image: host:5000/b:2"]);
    expect(await load(gzipSync(made.archive))).toHaveLength(2);
    await expectOnly(1, 1);
    for (const open of [false, true]) {
      if (open) store = await openStore();
      for (const name of ["a:1", "host:5000/b:2", made.id, made.id.slice(7, 19)]) {
        expect((await store.get(name)).id).toBe(made.id);
      }
      const image = await store.get("a:1");
      expect(image.tags).toEqual(["a:1", "host:5000/b:2"]);
      expect(image.sizeBytes).toBeGreaterThan(0);
      expect(
        new TextDecoder().decode((await store.readFile(image, "/etc/passwd")) ?? undefined),
      ).toBe("root:x:0:0::/:\n");
      expect(await store.readFile(image, "/etc/none")).toBeNull();
    }
    // Not "a", which one id in sixteen begins with.
    await expect(store.get("host:5000/b")).rejects.toThrow("No such image: host:5000/b:latest");
  });

  test("OCI layout, its layers shared with an image that has them", async () => {
    const layer = await layerOf("x");
    await load((await dockerArchive(["a:1"], layer)).archive);
    const made = await ociArchive("docker.io/library/o:1", layer);
    expect(await load(made.archive)).toEqual(["Loaded image: o:1"]);
    await expectOnly(2, 1);
    expect((await store.get("o:1")).digests).toHaveLength(1);
    await store.remove("a:1", quietly);
    await expectOnly(1, 1);
    await store.remove("o:1", quietly);
    await expectOnly(0, 0);
  });

  test("an image for another architecture is loaded", async () => {
    const config = { config: { architecture: "arm64" } };
    const made = await dockerArchive(["arm:1"], await layerOf("x"), config);
    expect(await load(made.archive)).toEqual(["Loaded image: arm:1"]);
    expect((await store.get("arm:1")).architecture).toBe("arm64");
  });

  const good = async () => (await dockerArchive(["a:1"], await layerOf("x"))).archive;
  test.each<readonly [string, () => Promise<Uint8Array>, string | RegExp]>([
    ["nothing", async () => new Uint8Array(), "holds nothing"],
    ["noise", async () => randomBytes(5_000), "it is broken, or no tar archive"],
    ["a cut archive", async () => (await good()).subarray(0, 3_000), "it is broken"],
    ["a cut gzip", async () => gzipSync(await good()).subarray(0, 200), "it is broken"],
    ["no manifest", () => packTar([file("x", "y")]), "neither manifest.json"],
    [
      "a path that leaves",
      () => packTar([file("../../etc/passwd", "y")]),
      'path "../../etc/passwd" leaves the archive',
    ],
    ["manifest no JSON", () => packTar([file("manifest.json", "{")]), "manifest.json is not valid"],
    [
      "another layer than the digest",
      async () =>
        (await dockerArchive(["a:1"], await layerOf("x"), { layer: await layerOf("y") })).archive,
      /digest .* does not match sha256:/,
    ],
    [
      "a config under a wrong name",
      async () =>
        (await dockerArchive(["a:1"], await layerOf("x"), { name: `${"0".repeat(64)}.json` }))
          .archive,
      /digest .* does not match sha256:0000/,
    ],
    [
      "a layer too few",
      async () => (await dockerArchive(["a:1"], await layerOf("x"), { diffIds: [] })).archive,
      "layers length mismatch",
    ],
    [
      "a blob with a flipped bit",
      async () => (await ociArchive("o:1", await layerOf("x"), true)).archive,
      "does not match",
    ],
    [
      "a tag that is none",
      async () => (await dockerArchive(["A:1"], await layerOf("x"))).archive,
      "must be lowercase",
    ],
  ])("%s is refused and leaves nothing", async (_name, make, message) => {
    await expect(load(await make())).rejects.toThrow(message);
    await expectOnly(0, 0);
    expect(existsSync("/tmp/etc/passwd")).toBe(false);
  });

  test("what a crash left is gone after the next start", async () => {
    await load(await good());
    await mkdir(join(root, "images", "tmp", "half"), { recursive: true });
    await mkdir(join(root, "layers", "sha256", "b".repeat(64)), { recursive: true });
    store = await openStore();
    await expectOnly(1, 1);
  });

  test("a damaged record is named", async () => {
    await load(await good());
    const [name = ""] = await readdir(join(root, "images", "records"));
    const path = join(root, "images", "records", name);
    const text = await readFile(path, "utf8");
    await writeFile(path, text.replace(/"bytes":\d/, '"bytes":9'));
    await expect(openStore()).rejects.toThrow(`reading ${path}: it is damaged`);
    await writeFile(path, text.slice(0, 40));
    await expect(openStore()).rejects.toThrow(`reading ${path}: it is damaged`);
  });
});

describe("import, tag, remove", () => {
  test("import takes a root file system and its changes", async () => {
    const id = await store.importRoot(chunks(await layerOf("x")), {
      reference: "root",
      changes: ['CMD ["a"]', "ENV A=1"],
      message: "m",
      platform: "linux/arm64",
    });
    expect(await store.get("root:latest")).toMatchObject({
      id,
      architecture: "arm64",
      comment: "m",
      config: { command: ["a"], env: ["A=1"] },
    });
    const bad = { reference: "A", changes: [], message: "", platform: null };
    await expect(store.importRoot(chunks(await layerOf("x")), bad)).rejects.toThrow("lowercase");
  });

  test("a tag moves, an image without tags goes by id, several repositories need force", async () => {
    const one = await dockerArchive(["a:1"], await layerOf("1"));
    const two = await dockerArchive(["b:1"], await layerOf("2"));
    await load(one.archive);
    await load(two.archive);
    await store.tag("b:1", "a:1");
    expect((await store.get("a:1")).id).toBe(two.id);
    expect((await store.get(one.id)).tags).toEqual([]);
    await expect(store.remove(two.id, quietly)).rejects.toThrow(
      `conflict: unable to delete ${two.id.slice(7, 19)} (must be forced) - image is referenced in multiple repositories`,
    );
    expect(await store.remove(one.id, quietly)).toEqual([{ deleted: one.id }]);
    expect(await store.remove("a:1", quietly)).toEqual([{ untagged: "a:1" }]);
    expect(await store.remove(two.id, { ...quietly, force: true })).toEqual([
      { untagged: "b:1" },
      { deleted: two.id },
    ]);
    await expectOnly(0, 0);
    await expect(store.remove("b:1", quietly)).rejects.toThrow("No such image: b:1");
  });

  test("a container keeps its image", async () => {
    const made = await dockerArchive(["a:1"], await layerOf("1"));
    await load(made.archive);
    const containerId = "c".repeat(64);
    store.setUses(() => [{ containerId, running: true }]);
    const id = made.id.slice(7, 19);
    await expect(store.remove("a:1", quietly)).rejects.toThrow(
      `conflict: unable to remove repository reference "a:1" (must force) - container cccccccccccc is using its referenced image ${id}`,
    );
    await expect(store.remove(made.id, { ...quietly, force: true })).rejects.toThrow(
      `conflict: unable to delete ${id} (cannot be forced) - image is being used by running container cccccccccccc`,
    );
    store.setUses(() => [{ containerId, running: false }]);
    await expect(store.remove(made.id, quietly)).rejects.toThrow("stopped container cccccccccccc");
    expect(await store.remove("a:1", { ...quietly, force: true })).toEqual([{ untagged: "a:1" }]);
    expect((await store.get(made.id)).tags).toEqual([]);
  });
});
