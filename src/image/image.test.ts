import { describe, expect, test } from "vitest";
import { applyChanges } from "./changes.ts";
import { emptyRun, parseConfig, platformProblem, writeConfig } from "./config.ts";
import { archivePath, parseDockerManifest, parseIndex, parseOciManifest } from "./manifest.ts";
import { familiar, familiarName, parseReference, withDefaultTag } from "./reference.ts";
import { splitWords } from "./words.ts";

const digest = `sha256:${"a".repeat(64)}`;
const bytes = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

describe("references", () => {
  test.each([
    ["busybox", "docker.io", "library/busybox", "busybox:latest"],
    ["busybox:1.36", "docker.io", "library/busybox", "busybox:1.36"],
    ["docker.io/library/busybox", "docker.io", "library/busybox", "busybox:latest"],
    ["index.docker.io/a/b", "docker.io", "a/b", "a/b:latest"],
    ["a/b", "docker.io", "a/b", "a/b:latest"],
    ["localhost/a", "localhost", "a", "localhost/a:latest"],
    ["host:5000/a/b:T_1", "host:5000", "a/b", "host:5000/a/b:T_1"],
    ["Host/a", "Host", "a", "Host/a:latest"],
    [`a@${digest}`, "docker.io", "library/a", `a@${digest}`],
    [`a:1@${digest}`, "docker.io", "library/a", `a:1@${digest}`],
    ["a__b/c-d.e", "docker.io", "a__b/c-d.e", "a__b/c-d.e:latest"],
  ])("%s", (text, domain, path, short) => {
    const parsed = parseReference(text);
    expect(parsed).toMatchObject({ domain, path });
    expect(familiar(withDefaultTag(parsed))).toBe(short);
    expect(parseReference(familiar(parsed))).toEqual(parsed);
    expect(familiarName(parsed)).not.toContain("@");
  });

  test.each([
    ["", "invalid reference format"],
    [":tag", "invalid reference format"],
    ["a b", "invalid reference format"],
    ["-a", "invalid reference format"],
    ["a//b", "invalid reference format"],
    ["a:", "invalid reference format"],
    [`a:${"t".repeat(129)}`, "invalid reference format"],
    ["a@sha256:1", "invalid reference format"],
    ["a/B", "invalid reference format: repository name (a/B) must be lowercase"],
    ["Busybox", "invalid reference format: repository name (library/Busybox) must be lowercase"],
    ["a".repeat(260), "repository name must not be more than 255 characters"],
    [
      "a".repeat(64),
      `invalid repository name (${"a".repeat(64)}), cannot specify 64-byte hexadecimal strings`,
    ],
  ])("%j is refused", (text, message) => {
    expect(() => parseReference(text)).toThrow(message);
  });
});

describe("configurations", () => {
  test("what was written is read again", () => {
    const file = parseConfig(
      bytes({
        os: "linux",
        architecture: "amd64",
        created: "2024-01-02T03:04:05.000Z",
        config: {
          Env: ["A=1"],
          Cmd: ["sh"],
          Entrypoint: null,
          Labels: { a: "b" },
          ExposedPorts: { "80/tcp": {} },
          StopSignal: "SIGQUIT",
        },
        rootfs: { type: "layers", diff_ids: [digest] },
        history: [{ created_by: "COPY", empty_layer: true }],
      }),
      "c",
    );
    expect(file.config).toMatchObject({ command: ["sh"], exposedPorts: ["80/tcp"] });
    expect(parseConfig(writeConfig(file), "c")).toEqual(file);
  });

  test.each([
    ["not json", new TextEncoder().encode("{"), "c is not valid JSON"],
    ["no rootfs", bytes({}), "c: rootfs is missing"],
    ["bad digest", bytes({ rootfs: { diff_ids: ["sha256:1"] } }), "is not a sha256 digest"],
    ["digests no list", bytes({ rootfs: { diff_ids: 1 } }), "is not a list of strings"],
    [
      "too many layers",
      bytes({ rootfs: { diff_ids: Array(200).fill(digest) } }),
      "more than 127 can be mounted",
    ],
  ])("%s", (_name, text, message) => {
    expect(() => parseConfig(text, "c")).toThrow(message);
  });

  test("another architecture is refused in docker's words", () => {
    const image = { os: "linux", architecture: "arm64", variant: "v8" };
    expect(platformProblem(image, "a:1", "amd64")).toBe(
      "image with reference a:1 was found but does not match the specified platform: wanted linux/amd64, actual: linux/arm64/v8",
    );
    expect(platformProblem({ ...image, architecture: "amd64" }, "a:1", "amd64")).toBeNull();
    expect(platformProblem({ ...image, architecture: "" }, "a:1", "amd64")).toBeNull();
  });
});

describe("manifests", () => {
  test("docker-archive", () => {
    const list = [{ Config: "c.json", RepoTags: ["docker.io/library/a"], Layers: ["./l/x.tar"] }];
    expect(parseDockerManifest(bytes(list))).toEqual([
      { config: "c.json", tags: ["a:latest"], layers: ["l/x.tar"] },
    ]);
    expect(() => parseDockerManifest(bytes([]))).toThrow("a list of 1 to");
    expect(() => parseDockerManifest(bytes([{}]))).toThrow("Config is missing");
    expect(() => parseDockerManifest(bytes([{ Config: "../c" }]))).toThrow("leaves the archive");
  });

  test("OCI", () => {
    const item = { mediaType: "m", digest, size: 3 };
    expect(parseIndex(bytes({ manifests: [item] }), "i")[0]).toMatchObject({ digest, size: 3 });
    const broken = { manifests: [{ ...item, size: -1 }] };
    expect(() => parseIndex(bytes(broken), "i")).toThrow("i: manifest 0: size -1 is wrong");
    expect(() => parseOciManifest(bytes({ config: item }), "m")).toThrow("layers are missing");
  });

  test.each(["../a", "/a", "a/../../b", "", "."])("path %j leaves the archive", (path) => {
    expect(() => archivePath(path)).toThrow("leaves the archive");
  });
});

describe("changes", () => {
  test.each([
    ['CMD ["a","b"]', { command: ["a", "b"] }],
    ["CMD a b", { command: ["/bin/sh", "-c", "a b"] }],
    ['entrypoint ["x"]', { entrypoint: ["x"] }],
    ['ENV A=1 B="2 3"', { env: ["A=1", "B=2 3"] }],
    ["ENV A 1 2", { env: ["A=1 2"] }],
    ["LABEL a=b", { labels: { a: "b" } }],
    ["EXPOSE 80 53/udp", { exposedPorts: ["80/tcp", "53/udp"] }],
    ["VOLUME /a /b", { volumes: ["/a", "/b"] }],
    ["WORKDIR a/../b", { workingDir: "/b" }],
    ["USER bob:1", { user: "bob:1" }],
    ["STOPSIGNAL SIGINT", { stopSignal: "SIGINT" }],
  ])("%s", (text, want) => {
    expect(applyChanges(emptyRun, [text])).toEqual({ ...emptyRun, ...want });
  });

  test.each([
    ["RUN x", "run is not a valid change command"],
    ["CMD", "CMD requires exactly one argument"],
    ["EXPOSE 99999", "invalid containerPort: 99999"],
    ["ENV =x", "can't find = in"],
  ])("%s is refused", (text, message) => {
    expect(() => applyChanges(emptyRun, [text])).toThrow(message);
  });

  test("words", () => {
    expect(splitWords(`a "b c" d\\ e 'f"g' ""`)).toEqual(["a", "b c", "d e", 'f"g', ""]);
  });
});
