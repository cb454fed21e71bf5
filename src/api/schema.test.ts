/** Goal: what we answer is what the API's document says. How: every answer is validated against the schema of its operation, null allowed for lists and objects (spec/engine-api.md section 1). */
import { Ajv } from "ajv";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parse } from "yaml";
import { aWorld, ids } from "./testing/fake-backend.ts";
import { type Served, serve } from "./testing/serve.ts";
import { hasEngineApi, needsEngineApi, swaggerText } from "./testing/shared.ts";

type Schema = Record<string, unknown>;
interface Swagger {
  readonly paths: Record<
    string,
    Record<string, { responses: Record<string, { schema?: Schema }> }>
  >;
  readonly definitions: Schema;
}

let served: Served;
let swagger: Swagger;
beforeAll(async () => {
  served = await serve(aWorld());
  if (hasEngineApi) swagger = parse(swaggerText()) as Swagger;
});
afterAll(() => served.close());

/** Fields that dockerd answers and its own document leaves out. */
const undocumented = new Set([
  "NetworksAttachments",
  "PreviousSpec",
  "TLSInfo.TrustRoot",
  "PortStatus",
]);

const reads = [
  ["/version", "/version"],
  ["/info", "/info"],
  ["/system/df", "/system/df"],
  ["/swarm", "/swarm"],
  ["/swarm/unlockkey", "/swarm/unlockkey"],
  ["/nodes", "/nodes"],
  ["/nodes/{id}", "/nodes/m1"],
  ["/services", "/services?status=true"],
  ["/services/{id}", "/services/web"],
  ["/services/{id}", "/services/web?insertDefaults=true"],
  ["/services/{id}", "/services/everywhere?insertDefaults=true"],
  ["/tasks", "/tasks"],
  ["/tasks/{id}", `/tasks/${ids.task}`],
  ["/networks", "/networks"],
  ["/networks/{id}", "/networks/ov1"],
  ["/networks/{id}", "/networks/host"],
  ["/images/json", "/images/json"],
  ["/images/{name}/json", "/images/busybox/json"],
  ["/images/{name}/history", "/images/busybox/history"],
  ["/containers/json", "/containers/json?all=1"],
  ["/containers/{id}/json", `/containers/${ids.container}/json`],
  ["/containers/{id}/top", `/containers/${ids.container}/top`],
  ["/plugins", "/plugins"],
  ["/volumes", "/volumes"],
  ["/secrets", "/secrets"],
  ["/configs", "/configs"],
] as const;

test.skipIf(!hasEngineApi).each(reads)(
  `GET %s as %s fits its schema${needsEngineApi}`,
  async (path, url) => {
    const answer = await served.call("GET", `/v1.50${url}`);
    expect(answer.status).toBe(200);
    const schema = swagger.paths[path]?.["get"]?.responses["200"]?.schema;
    expect(schema, `${path} has a schema`).toBeDefined();
    const ajv = new Ajv({ strict: false, validateFormats: false, allErrors: true });
    const validate = ajv.compile({
      ...relaxed(schema),
      definitions: relaxed(swagger.definitions),
    } as Schema);
    validate(answer.json());
    expect(validate.errors ?? []).toEqual([]);
    expect(strangers(answer.json(), schema as Schema, "")).toEqual([]);
  },
);

const writes = [
  ["/services/create", 201, { Name: "w", TaskTemplate: { ContainerSpec: { Image: "a" } } }],
  ["/networks/create", 201, { Name: "n", Driver: "overlay" }],
  ["/swarm/init", 200, {}],
] as const;
test.skipIf(!hasEngineApi).each(writes)(
  `POST %s fits its schema${needsEngineApi}`,
  async (path, status, body) => {
    const answer = await served.call("POST", `/v1.50${path}`, body);
    expect(answer.status).toBe(status);
    const schema = swagger.paths[path]?.["post"]?.responses[String(status)]?.schema;
    const ajv = new Ajv({ strict: false, validateFormats: false, allErrors: true });
    const validate = ajv.compile({
      ...relaxed(schema),
      definitions: relaxed(swagger.definitions),
    } as Schema);
    validate(answer.json());
    expect(validate.errors ?? []).toEqual([]);
  },
);

/** The schema with null allowed where Go sends it. */
function relaxed(schema: unknown): Schema {
  const copy = (node: unknown): unknown => {
    if (Array.isArray(node)) return node.map(copy);
    if (node === null || typeof node !== "object") return node;
    const result: Schema = {};
    for (const [key, value] of Object.entries(node)) {
      if (key !== "example" && key !== "examples") result[key] = copy(value);
    }
    const { type } = result;
    if (
      type === "array" ||
      type === "object" ||
      (result["x-nullable"] === true && typeof type === "string")
    ) {
      result["type"] = [type, "null"];
    }
    return result;
  };
  return copy(schema) as Schema;
}

/** Fields of ours that the document does not know: misspelt ones. */
function strangers(value: unknown, schema: Schema | undefined, path: string): readonly string[] {
  if (schema === undefined || value === null || typeof value !== "object") return [];
  const reference = schema["$ref"];
  if (typeof reference === "string") {
    const name = reference.replace("#/definitions/", "");
    return strangers(value, swagger.definitions[name] as Schema, path);
  }
  if (Array.isArray(value)) {
    return value.flatMap((one, index) =>
      strangers(one, schema["items"] as Schema, `${path}[${index}]`),
    );
  }
  const parts = [schema, ...((schema["allOf"] as Schema[] | undefined) ?? [])].map((part) =>
    typeof part["$ref"] === "string"
      ? (swagger.definitions[part["$ref"].replace("#/definitions/", "")] as Schema)
      : part,
  );
  const properties: Schema = Object.assign({}, ...parts.map((part) => flatProperties(part)));
  const open = schema["additionalProperties"] as Schema | undefined;
  if (Object.keys(properties).length === 0 && open === undefined) return [];
  return Object.entries(value).flatMap(([key, held]) => {
    const known = (properties[key] as Schema | undefined) ?? open;
    if (known === undefined) return undocumented.has(key) ? [] : [`${path}.${key}`];
    return strangers(held, known, `${path}.${key}`);
  });
}

function flatProperties(schema: Schema): Schema {
  const own = (schema["properties"] as Schema | undefined) ?? {};
  const parts = ((schema["allOf"] as Schema[] | undefined) ?? []).map((part) =>
    flatProperties(
      typeof part["$ref"] === "string"
        ? (swagger.definitions[part["$ref"].replace("#/definitions/", "")] as Schema)
        : part,
    ),
  );
  return Object.assign({}, ...parts, own);
}
