/** `node inspect --pretty`, line by line as docker's. */
import type { NodeJson } from "../engine-types.ts";
import { bytesSize } from "./units.ts";

/** The description of one node. */
export function nodePretty(node: NodeJson): string {
  const description = node.Description ?? {};
  const lines: string[] = [`ID:\t\t\t${node.ID}`];
  if (node.Spec.Name) lines.push(`Name:\t\t\t${node.Spec.Name}`);
  const labels = Object.entries(node.Spec.Labels ?? {});
  if (labels.length > 0) lines.push("Labels:", ...sortedEntries(labels, " - "));
  lines.push(
    `Hostname:              \t${description.Hostname ?? ""}`,
    `Joined at:             \t${goTime(node.CreatedAt)}`,
    "Status:",
    ` State:\t\t\t${capital(node.Status.State)}`,
  );
  if (node.Status.Message) lines.push(` Message:              \t${capital(node.Status.Message)}`);
  lines.push(
    ` Availability:         \t${capital(node.Spec.Availability)}`,
    ` Address:\t\t${node.Status.Addr ?? ""}`,
  );
  if (node.ManagerStatus) {
    lines.push(
      "Manager Status:",
      ` Address:\t\t${node.ManagerStatus.Addr ?? ""}`,
      ` Raft Status:\t\t${capital(node.ManagerStatus.Reachability ?? "")}`,
      ` Leader:\t\t${node.ManagerStatus.Leader === true ? "Yes" : "No"}`,
    );
  }
  lines.push(
    "Platform:",
    ` Operating System:\t${description.Platform?.OS ?? ""}`,
    ` Architecture:\t\t${description.Platform?.Architecture ?? ""}`,
    "Resources:",
    ` CPUs:\t\t\t${Math.trunc((description.Resources?.NanoCPUs ?? 0) / 1e9)}`,
    ` Memory:\t\t${bytesSize(description.Resources?.MemoryBytes ?? 0)}`,
  );
  const plugins = new Map<string, string[]>();
  for (const { Type, Name } of description.Engine?.Plugins ?? []) {
    plugins.set(Type, [...(plugins.get(Type) ?? []), Name]);
  }
  if (plugins.size > 0) {
    lines.push("Plugins:");
    for (const type of [...plugins.keys()].sort()) {
      lines.push(` ${type}:\t\t${(plugins.get(type) ?? []).join(", ")}`);
    }
  }
  lines.push(`Engine Version:\t\t${description.Engine?.EngineVersion ?? ""}`);
  const engineLabels = Object.entries(description.Engine?.Labels ?? {});
  if (engineLabels.length > 0) lines.push("Engine Labels:", ...sortedEntries(engineLabels, " - "));
  const tls = description.TLSInfo;
  if (tls?.TrustRoot) {
    lines.push(
      "TLS Info:",
      " TrustRoot:",
      tls.TrustRoot,
      ` Issuer Subject:\t${tls.CertIssuerSubject ?? ""}`,
      ` Issuer Public Key:\t${tls.CertIssuerPublicKey ?? ""}`,
    );
  }
  return `${lines.join("\n")}\n`;
}

/** As Go's Time.String in UTC: `2026-11-20 15:01:07.768212858 +0000 utc`, in lower case, as docker prints it. */
export function goTime(time: string): string {
  const match = /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d*?)?0*Z$/.exec(time);
  if (match === null) return time;
  const fraction = match[3] === undefined || match[3] === "." ? "" : match[3];
  return `${match[1]} ${match[2]}${fraction} +0000 utc`;
}

function sortedEntries(entries: readonly (readonly [string, string])[], before: string): string[] {
  return [...entries]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${before}${key}=${value}`);
}
function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
