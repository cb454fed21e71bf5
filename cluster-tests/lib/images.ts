/** Image archives for tests, made from a root file system tar: docker-archive and OCI layout. */
import { createHash } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { must } from "./command.ts";

function sha256(data: Uint8Array | string): string {
  return createHash("sha256").update(data).digest("hex");
}

function config(diffId: string, architecture: string): string {
  return JSON.stringify({
    architecture,
    os: "linux",
    created: "2026-01-01T00:00:00Z",
    config: { Cmd: ["sh"], Env: ["PATH=/bin"] },
    rootfs: { type: "layers", diff_ids: [`sha256:${diffId}`] },
    history: [{ created: "2026-01-01T00:00:00Z", created_by: "test" }],
  });
}

/** A docker-archive (`docker save`'s form) of one layer, tagged; answers its path. */
export async function dockerArchive(
  folder: string,
  rootfsTar: string,
  tag: string,
  architecture = "amd64",
): Promise<string> {
  const work = join(folder, "archive");
  await rm(work, { recursive: true, force: true });
  await mkdir(join(work, "layer"), { recursive: true });
  const layer = await readFile(rootfsTar);
  const text = config(sha256(layer), architecture);
  const name = `${sha256(text)}.json`;
  await writeFile(join(work, "layer/layer.tar"), layer);
  await writeFile(join(work, name), text);
  await writeFile(
    join(work, "manifest.json"),
    JSON.stringify([{ Config: name, RepoTags: [tag], Layers: ["layer/layer.tar"] }]),
  );
  const path = join(folder, `${tag.replaceAll(/[^a-z0-9]/g, "-")}-${architecture}.docker.tar`);
  await must("tar", ["-C", work, "-cf", path, "manifest.json", name, "layer"]);
  await rm(work, { recursive: true, force: true });
  return path;
}

/** An OCI layout tar of one gzip layer; answers its path. `spoil` flips a byte of the layer blob. */
export async function ociArchive(
  folder: string,
  rootfsTar: string,
  tag: string,
  options: { readonly spoil?: boolean } = {},
): Promise<string> {
  const work = join(folder, "oci");
  const blobs = join(work, "blobs/sha256");
  await rm(work, { recursive: true, force: true });
  await mkdir(blobs, { recursive: true });
  const put = async (data: Uint8Array | string): Promise<{ digest: string; size: number }> => {
    const hex = sha256(data);
    await writeFile(join(blobs, hex), data);
    return { digest: `sha256:${hex}`, size: Buffer.byteLength(data) };
  };
  const layer = await readFile(rootfsTar);
  await must("gzip", ["-kf", rootfsTar]);
  const packed = await readFile(`${rootfsTar}.gz`);
  await rm(`${rootfsTar}.gz`);
  const layerBlob = await put(packed);
  const configBlob = await put(config(sha256(layer), "amd64"));
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: { mediaType: "application/vnd.oci.image.config.v1+json", ...configBlob },
    layers: [{ mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", ...layerBlob }],
  });
  const manifestBlob = await put(manifest);
  await writeFile(join(work, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  await writeFile(
    join(work, "index.json"),
    JSON.stringify({
      schemaVersion: 2,
      manifests: [
        {
          mediaType: "application/vnd.oci.image.manifest.v1+json",
          ...manifestBlob,
          annotations: {
            "org.opencontainers.image.ref.name": tag,
            "io.containerd.image.name": tag,
          },
        },
      ],
    }),
  );
  if (options.spoil === true) {
    const path = join(blobs, layerBlob.digest.slice("sha256:".length));
    const bytes = await readFile(path);
    const middle = Math.floor(bytes.length / 2);
    bytes[middle] = (bytes[middle] ?? 0) ^ 0x10;
    await writeFile(path, bytes);
  }
  const path = join(
    folder,
    `${tag.replaceAll(/[^a-z0-9]/g, "-")}${options.spoil === true ? "-spoiled" : ""}.oci.tar`,
  );
  await must("tar", ["-C", work, "-cf", path, "."]);
  await rm(work, { recursive: true, force: true });
  return path;
}
