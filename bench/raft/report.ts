/** What the rounds of two engines add up to: medians, the medians of the rounds' ratios, and the bars they are held to. */
import type { EngineName } from "./cluster.ts";

export interface Row {
  readonly engine: EngineName;
  readonly what: string;
  readonly unit: string;
  readonly value: number;
}

interface Bar {
  readonly what: RegExp;
  readonly says: string;
  readonly holds: (ratio: number, ours: number) => boolean;
}

/** Of ours to etcd's, or of ours alone. */
const bars: readonly Bar[] = [
  { what: /^writes \d+$/, says: "at least 1.5", holds: (ratio) => ratio >= 1.5 },
  { what: /^writes 256 p99$/, says: "at most 0.5", holds: (ratio) => ratio <= 0.5 },
  { what: /^reads \d+$/, says: "at least 3", holds: (ratio) => ratio >= 3 },
  { what: /^RSS, /, says: "at most 1", holds: (ratio) => ratio <= 1 },
  { what: /^failover$/, says: "at most 300 ms", holds: (_ratio, ours) => ours <= 300 },
];

export const unlike: readonly string[] = [
  "unlike: etcd also keeps every version of a key (MVCC) in bbolt on disk and answers over gRPC (HTTP/2, protobuf); ours keeps a map in memory, in snapshots and in the log, and answers over websocket frames of msgpack that carry what was asked at the same time.",
  "unlike: etcd is Go on several threads; ours is one Node thread a member, and one for syncs; its Node has a young generation of 12 MiB and a malloc that gives memory back (bench/raft/cluster.ts). The load generator is one Go program for both; for etcd it uses etcd's own client (clientv3). What the client itself costs is in the table.",
  "unlike: failover is asked of all three members in both, a write each 5 ms to each; ours starts an election when the leader's connection closes, etcd when the election timeout is over.",
  "A ratio above 1 says that Raft is not the bottleneck, not that ours is the better store.",
];

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? upper) + upper) / 2;
}

/** The table, as lines. Ratios are of the n-th value of ours to the n-th of etcd's: of one round. */
export function report(rows: readonly Row[]): string[] {
  const whats = [...new Set(rows.map((row) => row.what))];
  const lines = [
    "",
    "| what | shoal | etcd | ratio (median of rounds) | bar | |",
    "|---|---|---|---|---|---|",
  ];
  for (const what of whats) {
    const of = (engine: EngineName): number[] =>
      rows.filter((row) => row.what === what && row.engine === engine).map((row) => row.value);
    const unit = rows.find((row) => row.what === what)?.unit ?? "";
    const [ours, theirs] = [of("shoal"), of("etcd")];
    const ratios = ours.flatMap((value, at) => {
      const other = theirs[at];
      return other === undefined || other === 0 ? [] : [value / other];
    });
    const ratio = median(ratios);
    const bar = bars.find((candidate) => candidate.what.test(what));
    const verdict =
      bar === undefined || ours.length === 0 ? "" : verdictOf(bar, ratio, median(ours));
    lines.push(
      `| ${what} | ${spread(ours, unit)} | ${spread(theirs, unit)} | ${ratios.length === 0 ? "" : ratio.toFixed(2)} | ${bar?.says ?? ""} | ${verdict} |`,
    );
  }
  return [...lines, "", ...unlike];
}

function verdictOf(bar: Bar, ratio: number, ours: number): string {
  return bar.holds(ratio, ours) ? "met" : "not met";
}

function spread(values: readonly number[], unit: string): string {
  if (values.length === 0) return "";
  const digits = unit === "/s" || (unit === "ms" && median(values) >= 100) ? 0 : 2;
  const low = Math.min(...values).toFixed(digits);
  const high = Math.max(...values).toFixed(digits);
  return `${median(values).toFixed(digits)} ${unit} [${low}-${high}]`;
}
