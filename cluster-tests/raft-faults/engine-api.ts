/** One request of the Engine API, with an answer that says what is known: answered, never sent, or perhaps done. */
import { type Agent, request } from "node:http";

export type Answer =
  | { readonly kind: "answered"; readonly status: number; readonly text: string }
  /** No byte of it reached the daemon. */
  | { readonly kind: "never-sent"; readonly why: string }
  /** The daemon may have done it, may do it yet, or never. */
  | { readonly kind: "unknown"; readonly why: string };

/** A connection that was not made: nothing listens, the socket is not there, or its queue is full. */
const neverConnected = new Set(["ECONNREFUSED", "ENOENT", "EAGAIN"]);

export interface EngineRequest {
  readonly socket: string;
  readonly agent: Agent;
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly body: unknown;
  /** How long the caller waits, in milliseconds. */
  readonly timeoutMs: number;
}

/** Sends it. Never rejects. */
export async function ask(wanted: EngineRequest): Promise<Answer> {
  const bytes = wanted.body === null ? null : JSON.stringify(wanted.body);
  return await new Promise<Answer>((resolve) => {
    const outgoing = request(
      {
        socketPath: wanted.socket,
        agent: wanted.agent,
        method: wanted.method,
        path: `/v1.41${wanted.path}`,
        headers:
          bytes === null
            ? {}
            : { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(bytes) },
      },
      (response) => {
        let text = "";
        response.on("data", (chunk) => {
          text += String(chunk);
        });
        response.once("error", (error) => finish({ kind: "unknown", why: String(error) }));
        response.once("end", () => {
          finish({ kind: "answered", status: response.statusCode ?? 0, text });
        });
      },
    );
    const timer = setTimeout(() => {
      finish({ kind: "unknown", why: `no answer in ${wanted.timeoutMs} ms` });
      outgoing.destroy();
    }, wanted.timeoutMs);
    const finish = (answer: Answer): void => {
      clearTimeout(timer);
      resolve(answer);
    };
    outgoing.on("error", (error: NodeJS.ErrnoException) => {
      const kind = neverConnected.has(error.code ?? "") ? "never-sent" : "unknown";
      finish({ kind, why: String(error) });
    });
    outgoing.end(bytes ?? undefined);
  });
}

/** The body of an answer that must be there with this status. Throws with what came instead. */
export function bodyOf(answer: Answer, doing: string, status = 200): string {
  if (answer.kind !== "answered") throw new Error(`${doing}: ${answer.kind}: ${answer.why}`);
  if (answer.status !== status) throw new Error(`${doing}: ${answer.status} ${answer.text}`);
  return answer.text;
}
