/** Flags that many commands have, with docker's words. */
import type { FlagSpec } from "../flag.ts";

const go =
  "Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates";

export const filterFlag: FlagSpec = {
  name: "filter",
  short: "f",
  kind: "filter",
  help: "Filter output based on conditions provided",
};
export const listFormatFlag: FlagSpec = {
  name: "format",
  kind: "string",
  help: `Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'. ${go}`,
};
export const inspectFormatFlag: FlagSpec = {
  name: "format",
  short: "f",
  kind: "string",
  help: `Format output using a custom template: 'json' or 'TEMPLATE'. ${go}`,
};
export const noTruncFlag: FlagSpec = {
  name: "no-trunc",
  kind: "bool",
  help: "Do not truncate output",
};
export const noResolveFlag: FlagSpec = {
  name: "no-resolve",
  kind: "bool",
  help: "Do not map IDs to Names",
};
export const detachFlag: FlagSpec = {
  name: "detach",
  short: "d",
  kind: "bool",
  help: "Exit immediately instead of waiting for the service to converge",
};
export const prettyFlag: FlagSpec = {
  name: "pretty",
  kind: "bool",
  help: "Print the information in a human friendly format",
};

/** `--quiet` with what it shows. */
export function quietFlag(help: string): FlagSpec {
  return { name: "quiet", short: "q", kind: "bool", help };
}
export const logFlags: readonly FlagSpec[] = [
  { name: "details", kind: "bool", help: "Show extra details provided to logs" },
  { name: "follow", short: "f", kind: "bool", help: "Follow log output" },
  {
    name: "since",
    kind: "string",
    help: 'Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)',
  },
  {
    name: "tail",
    short: "n",
    kind: "string",
    help: "Number of lines to show from the end of the logs",
    default: "all",
  },
  { name: "timestamps", short: "t", kind: "bool", help: "Show timestamps" },
];
