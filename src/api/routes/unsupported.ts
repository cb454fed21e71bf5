/** The operations of the API that do not exist yet: each is refused by its name, none is a silent 404. */
import type { FastifyInstance } from "fastify";
import { failure, type ShoalError } from "../../lib/errors.ts";

type Method = "GET" | "HEAD" | "POST" | "PUT" | "DELETE";

/** Method and path as the API's document has them; images' own are in routes/images.ts. */
const operations: readonly (readonly [Method, string])[] = [
  ["POST", "/containers/create"],
  ["POST", "/containers/prune"],
  ["GET", "/containers/{id}/changes"],
  ["GET", "/containers/{id}/export"],
  ["GET", "/containers/{id}/stats"],
  ["POST", "/containers/{id}/resize"],
  ["POST", "/containers/{id}/start"],
  ["POST", "/containers/{id}/stop"],
  ["POST", "/containers/{id}/restart"],
  ["POST", "/containers/{id}/kill"],
  ["POST", "/containers/{id}/update"],
  ["POST", "/containers/{id}/rename"],
  ["POST", "/containers/{id}/pause"],
  ["POST", "/containers/{id}/unpause"],
  ["POST", "/containers/{id}/attach"],
  ["GET", "/containers/{id}/attach/ws"],
  ["POST", "/containers/{id}/wait"],
  ["DELETE", "/containers/{id}"],
  ["HEAD", "/containers/{id}/archive"],
  ["GET", "/containers/{id}/archive"],
  ["PUT", "/containers/{id}/archive"],
  ["POST", "/containers/{id}/exec"],
  ["POST", "/exec/{id}/start"],
  ["POST", "/exec/{id}/resize"],
  ["GET", "/exec/{id}/json"],
  ["POST", "/build"],
  ["POST", "/build/prune"],
  ["POST", "/build/cancel"],
  ["POST", "/commit"],
  ["GET", "/images/search"],
  ["POST", "/images/prune"],
  ["GET", "/images/get"],
  ["POST", "/auth"],
  ["POST", "/session"],
  ["POST", "/grpc"],
  ["POST", "/networks/prune"],
  ["POST", "/networks/{id}/connect"],
  ["POST", "/networks/{id}/disconnect"],
  ["POST", "/volumes/create"],
  ["POST", "/volumes/prune"],
  ["PUT", "/volumes/{name}"],
  ["DELETE", "/volumes/{name}"],
  ["GET", "/plugins/privileges"],
  ["POST", "/plugins/pull"],
  ["POST", "/plugins/create"],
  ["POST", "/plugins/{name}/enable"],
  ["POST", "/plugins/{name}/disable"],
  ["POST", "/plugins/{name}/upgrade"],
  ["POST", "/plugins/{name}/push"],
  ["POST", "/plugins/{name}/set"],
  ["DELETE", "/plugins/{name}"],
  ["POST", "/secrets/create"],
  ["POST", "/secrets/{id}/update"],
  ["DELETE", "/secrets/{id}"],
  ["POST", "/configs/create"],
  ["POST", "/configs/{id}/update"],
  ["DELETE", "/configs/{id}"],
];

export function unsupportedRoutes(app: FastifyInstance): void {
  for (const [method, path] of operations) {
    app.route({
      method,
      url: path.replaceAll(/\{(\w+)\}/g, ":$1"),
      handler: async () => {
        throw unsupported(method, path);
      },
    });
  }
}

/** ShoalError("not-implemented") for an operation of the API: "containers/create is not supported by this version of shoal". */
export function unsupported(method: Method, path: string): ShoalError {
  const verb = method === "POST" ? "" : `${method} `;
  return failure(
    "not-implemented",
    `${verb}${path.slice(1)} is not supported by this version of shoal`,
  );
}
