/** Images: `images`, `load`, `import`, `rmi` and the group `image`. */
import { createReadStream, statSync } from "node:fs";
import type { Readable } from "node:stream";
import { failure } from "../../lib/errors.ts";
import { type Cli, say } from "../cli.ts";
import { filterQuery } from "../client.ts";
import type { CommandSpec, GroupSpec } from "../command.ts";
import type { ImageSummaryJson } from "../engine-types.ts";
import { inspectAll } from "../output/inspect.ts";
import { readJsonLines } from "../output/json-lines.ts";
import { type ListLayout, renderList } from "../output/list.ts";
import { ago, humanSize, shortId } from "../output/units.ts";
import { filterMap } from "../values.ts";
import { filterFlag, inspectFormatFlag, listFormatFlag, quietFlag } from "./common-flags.ts";
import { forEach } from "./each.ts";

interface ImageRow {
  readonly image: ImageSummaryJson;
  readonly repository: string;
  readonly tag: string;
  readonly digest: string;
}
interface StreamLine {
  readonly stream?: string;
  readonly status?: string;
  readonly error?: string;
  readonly errorDetail?: { readonly message?: string };
}

const list: Omit<CommandSpec, "name"> = {
  usage: "[OPTIONS] [REPOSITORY[:TAG]]",
  summary: "List images",
  arguments: [0, 1],
  flags: [
    {
      name: "all",
      short: "a",
      kind: "bool",
      help: "Show all images (default hides intermediate images)",
    },
    { name: "digests", kind: "bool", help: "Show digests" },
    filterFlag,
    listFormatFlag,
    { name: "no-trunc", kind: "bool", help: "Don't truncate output" },
    quietFlag("Only show image IDs"),
  ],
  run: async ({ cli, args, flags }) => {
    const filters = { ...filterMap(flags.list("filter")) };
    if (args[0] !== undefined) filters["reference"] = { ...filters["reference"], [args[0]]: true };
    const images = await cli.engine().json<ImageSummaryJson[]>("GET", "/images/json", {
      query: {
        all: flags.on("all") ? "1" : null,
        filters: Object.keys(filters).length > 0 ? filterQuery(filters) : null,
      },
    });
    const showDigests = flags.on("digests");
    const rows = images.flatMap((image) => rowsOf(image, showDigests));
    cli.out.write(
      renderList(layout(cli, flags.on("no-trunc"), showDigests), rows, {
        format: flags.text("format"),
        quiet: flags.on("quiet"),
      }),
    );
    return 0;
  },
};

const load: CommandSpec = {
  name: "load",
  usage: "[OPTIONS]",
  summary: "Load an image from a tar archive or STDIN",
  arguments: [0, 0],
  flags: [
    {
      name: "input",
      short: "i",
      kind: "string",
      help: "Read from tar archive file, instead of STDIN",
    },
    {
      name: "platform",
      kind: "string",
      help: 'Load only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")',
    },
    quietFlag("Suppress the load output"),
  ],
  run: async ({ cli, flags }) => {
    const file = flags.text("input");
    if (file === null && cli.in.isTTY === true) {
      throw failure("invalid", "requested load from stdin, but stdin is empty");
    }
    await loadArchive(cli, file === null ? cli.in : openFile(file), {
      quiet: flags.on("quiet"),
      platform: flags.text("platform"),
    });
    return 0;
  },
};

const importImage: CommandSpec = {
  name: "import",
  usage: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
  summary: "Import the contents from a tarball to create a filesystem image",
  arguments: [1, 2],
  flags: [
    {
      name: "change",
      short: "c",
      kind: "list",
      help: "Apply Dockerfile instruction to the created image",
    },
    { name: "message", short: "m", kind: "string", help: "Set commit message for imported image" },
    { name: "platform", kind: "string", help: "Set platform if server is multi-platform capable" },
  ],
  run: async ({ cli, args, flags }) => {
    const [source = "", reference = ""] = args;
    const isUrl = /^https?:\/\//.test(source);
    const at = reference.lastIndexOf(":");
    const isTagged = at > reference.lastIndexOf("/");
    const changes = flags.list("change").map((change) => `changes=${encodeURIComponent(change)}`);
    const path = `/images/create${changes.length > 0 ? `?${changes.join("&")}` : ""}`;
    const response = await cli.engine().stream("POST", path, {
      query: {
        fromSrc: isUrl ? source : "-",
        repo: isTagged ? reference.slice(0, at) : reference || null,
        tag: isTagged ? reference.slice(at + 1) : null,
        message: flags.text("message"),
        platform: flags.text("platform"),
      },
      ...(isUrl ? {} : { stream: source === "-" ? cli.in : openFile(source) }),
      headers: { "content-type": "text/plain" },
    });
    await showLines(cli, response, false);
    return 0;
  },
};

const remove: Omit<CommandSpec, "name"> = {
  usage: "[OPTIONS] IMAGE [IMAGE...]",
  summary: "Remove one or more images",
  arguments: [1, null],
  flags: [
    { name: "force", short: "f", kind: "bool", help: "Force removal of the image" },
    { name: "no-prune", kind: "bool", help: "Do not delete untagged parents" },
  ],
  run: async ({ cli, args, flags }) =>
    await forEach(cli, args, async (image) => {
      const gone = await cli
        .engine()
        .json<{ Untagged?: string; Deleted?: string }[]>("DELETE", `/images/${imagePath(image)}`, {
          query: {
            force: flags.on("force") ? "1" : null,
            noprune: flags.on("no-prune") ? "1" : null,
          },
        });
      for (const { Untagged, Deleted } of gone ?? []) {
        say(cli, Deleted === undefined ? `Untagged: ${Untagged ?? ""}` : `Deleted: ${Deleted}`);
      }
    }),
};

const inspect: CommandSpec = {
  name: "inspect",
  usage: "[OPTIONS] IMAGE [IMAGE...]",
  summary: "Display detailed information on one or more images",
  arguments: [1, null],
  flags: [inspectFormatFlag],
  run: async ({ cli, args, flags }) =>
    await inspectAll(cli, args, flags.text("format"), (image) =>
      cli.engine().json("GET", `/images/${imagePath(image)}/json`),
    ),
};

const tag: CommandSpec = {
  name: "tag",
  usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
  summary: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
  arguments: [2, 2],
  run: async ({ cli, args }) => {
    const [source = "", target = ""] = args;
    const at = target.lastIndexOf(":");
    const isTagged = at > target.lastIndexOf("/");
    await cli.engine().json("POST", `/images/${imagePath(source)}/tag`, {
      query: {
        repo: isTagged ? target.slice(0, at) : target,
        tag: isTagged ? target.slice(at + 1) : "latest",
      },
    });
    return 0;
  },
};

export const imageGroup: GroupSpec = {
  name: "image",
  summary: "Manage images",
  commands: [
    { ...importImage, alsoCalled: ["shoal import"] },
    inspect,
    { ...load, alsoCalled: ["shoal load"] },
    { ...list, name: "ls", aliases: ["list"], alsoCalled: ["shoal image list", "shoal images"] },
    { ...remove, name: "rm", aliases: ["remove"], alsoCalled: ["shoal image remove", "shoal rmi"] },
    { ...tag, alsoCalled: ["shoal tag"] },
  ],
};
export const imageCommands: readonly CommandSpec[] = [
  { ...list, name: "images", alsoCalled: ["shoal image ls", "shoal image list"] },
  { ...load, alsoCalled: ["shoal image load"] },
  { ...importImage, alsoCalled: ["shoal image import"] },
  { ...remove, name: "rmi", alsoCalled: ["shoal image rm", "shoal image remove"] },
  { ...tag, alsoCalled: ["shoal image tag"] },
];

/** Sends an archive to the daemon and shows what it says. Throws the error that it says in the stream. */
export async function loadArchive(
  cli: Pick<Cli, "engine" | "out">,
  archive: Readable,
  options: { readonly quiet: boolean; readonly platform: string | null },
): Promise<void> {
  const response = await cli.engine().stream("POST", "/images/load", {
    query: { quiet: options.quiet ? "1" : "0", platform: options.platform },
    stream: archive,
    headers: { "content-type": "application/x-tar" },
  });
  await showLines(cli, response, options.quiet);
}

/** Opens a file for sending. Throws `invalid` as docker's "open FILE: no such file or directory". */
export function openFile(path: string): Readable {
  try {
    if (statSync(path).isDirectory()) throw failure("invalid", `read ${path}: is a directory`);
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === "ENOENT";
    throw isMissing ? failure("invalid", `open ${path}: no such file or directory`, error) : error;
  }
  return createReadStream(path);
}

async function showLines(cli: Pick<Cli, "out">, source: Readable, quiet: boolean): Promise<void> {
  for await (const line of readJsonLines<StreamLine>(source)) {
    const error = line.errorDetail?.message ?? line.error;
    if (error !== undefined) throw failure("internal", error);
    // docker load -q still says what was loaded.
    if (line.stream !== undefined && (!quiet || line.stream.startsWith("Loaded")))
      cli.out.write(line.stream);
    else if (line.status !== undefined) cli.out.write(`${line.status}\n`);
  }
}

/** A reference in a path: its slashes are part of the route. */
function imagePath(reference: string): string {
  return encodeURIComponent(reference)
    .replace(/%2F/g, "/")
    .replace(/%3A/g, ":")
    .replace(/%40/g, "@");
}

function rowsOf(image: ImageSummaryJson, digests: boolean): ImageRow[] {
  const tags = image.RepoTags ?? [];
  const digestOf = (repository: string): string =>
    (image.RepoDigests ?? []).find((entry) => entry.startsWith(`${repository}@`))?.split("@")[1] ??
    "<none>";
  const rows = tags
    .filter((reference) => reference !== "<none>:<none>")
    .map((reference) => {
      const at = reference.lastIndexOf(":");
      const repository = reference.slice(0, at);
      return { image, repository, tag: reference.slice(at + 1), digest: digestOf(repository) };
    });
  if (rows.length > 0) return rows;
  const [repository = "<none>", digest = "<none>"] = (image.RepoDigests ?? [])[0]?.split("@") ?? [];
  return [{ image, repository, tag: "<none>", digest: digests ? digest : "<none>" }];
}

function layout(cli: Cli, noTrunc: boolean, digests: boolean): ListLayout<ImageRow> {
  return {
    columns: {
      Containers: {
        header: "CONTAINERS",
        value: ({ image }) => ((image.Containers ?? -1) < 0 ? "N/A" : String(image.Containers)),
      },
      CreatedAt: { header: "CREATED AT", value: ({ image }) => localTime(image.Created) },
      CreatedSince: { header: "CREATED", value: ({ image }) => ago(image.Created, cli.now()) },
      Digest: { header: "DIGEST", value: ({ digest }) => digest },
      ID: { header: "IMAGE ID", value: ({ image }) => (noTrunc ? image.Id : shortId(image.Id)) },
      Repository: { header: "REPOSITORY", value: ({ repository }) => repository },
      SharedSize: { header: "SHARED SIZE", value: () => "N/A" },
      Size: { header: "SIZE", value: ({ image }) => humanSize(image.Size) },
      Tag: { header: "TAG", value: ({ tag: name }) => name },
      UniqueSize: { header: "UNIQUE SIZE", value: () => "N/A" },
      VirtualSize: { header: "SIZE", value: ({ image }) => humanSize(image.Size) },
    },
    table: digests
      ? ["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"]
      : ["Repository", "Tag", "ID", "CreatedSince", "Size"],
    quiet: "ID",
  };
}

/** `2026-11-20 15:01:07 +0000 UTC` of Unix seconds. */
export function localTime(seconds: number): string {
  return `${new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ")} +0000 UTC`;
}
