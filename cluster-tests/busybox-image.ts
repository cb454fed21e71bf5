/** A busybox image as archives for tests, made from the host's static busybox. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { packTar } from "modern-tar";

const applets = [
  "sh",
  "sleep",
  "ls",
  "cat",
  "echo",
  "id",
  "grep",
  "hostname",
  "mount",
  "ip",
  "ping",
  "nslookup",
  "wget",
  "httpd",
  "nc",
  "true",
  "false",
  "trap",
  "touch",
  "seq",
];
const directories = ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr/bin", "var/www"];

/** A root file system with busybox and its usual names. */
export async function busyboxRoot(): Promise<Uint8Array> {
  const busybox = await readFile("/usr/bin/busybox");
  return await packTar([
    ...directories.map((name) => ({
      header: { name: `${name}/`, size: 0, type: "directory" as const, mode: 0o755 },
    })),
    {
      header: { name: "bin/busybox", size: busybox.byteLength, type: "file", mode: 0o755 },
      body: busybox,
    },
    ...applets.map((name) => ({
      header: {
        name: `bin/${name}`,
        size: 0,
        type: "symlink" as const,
        linkname: "busybox",
        mode: 0o777,
      },
    })),
    text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/sh\n"),
    text("etc/group", "root:x:0:\nweb:x:34:\nlog:x:55:web\n"),
  ]);
}

/** docker-archive of an image with busyboxRoot as its only layer. */
export async function busyboxArchive(
  tag: string,
  change: (config: Record<string, unknown>) => Record<string, unknown> = (config) => config,
): Promise<Uint8Array> {
  const layer = await busyboxRoot();
  const config = JSON.stringify(
    change({
      architecture: "amd64",
      os: "linux",
      config: { Env: ["PATH=/bin"], Cmd: ["sh"] },
      rootfs: { type: "layers", diff_ids: [`sha256:${sha256(layer)}`] },
    }),
  );
  const id = sha256(config);
  const manifest = [{ Config: `${id}.json`, RepoTags: [tag], Layers: [`${id}/layer.tar`] }];
  return await packTar([
    text(`${id}.json`, config),
    { header: { name: `${id}/layer.tar`, size: layer.byteLength, type: "file" }, body: layer },
    text("manifest.json", JSON.stringify(manifest)),
  ]);
}

/** One chunk as a stream. */
export async function* stream(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

function text(name: string, body: string) {
  const size = new TextEncoder().encode(body).byteLength;
  return { header: { name, size, type: "file" as const, mode: 0o644 }, body };
}

function sha256(bytes: Uint8Array | string): string {
  return createHash("sha256").update(bytes).digest("hex");
}
