/** The files under /etc that are made for each container: hosts, hostname and resolv.conf. */

/** Where the resolver of a networked container listens, inside it. */
export const resolverAddress = "127.0.0.11";

/** Text of /etc/hosts: docker's own lines, extra ones as given, then each address with the host's name. */
export function hostsFile(
  hostname: string,
  addresses: readonly string[],
  extra: readonly string[],
): string {
  return lines([
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::\tip6-localnet",
    "ff00::\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
    ...extra.map((line) => line.replace(/\s+/, "\t")),
    ...addresses.map((address) => `${address}\t${hostname}`),
  ]);
}

/** Text of /etc/hostname. */
export function hostnameFile(hostname: string): string {
  return lines([hostname]);
}

export interface ResolvConf {
  readonly nameservers: readonly string[];
  readonly search: readonly string[];
  readonly options: readonly string[];
}

/** Text of /etc/resolv.conf. A networked container asks our resolver, which asks `nameservers` itself. */
export function resolvConfFile(networked: boolean, dns: ResolvConf): string {
  const options =
    networked && !dns.options.some((option) => option.startsWith("ndots:"))
      ? [...dns.options, "ndots:0"]
      : dns.options;
  const nameservers = networked ? [resolverAddress] : dns.nameservers;
  return lines([
    ...nameservers.map((address) => `nameserver ${address}`),
    ...(dns.search.length > 0 ? [`search ${dns.search.join(" ")}`] : []),
    ...(options.length > 0 ? [`options ${options.join(" ")}`] : []),
  ]);
}

/** Reads a resolv.conf (resolv.conf(5)); what is not understood is left out. */
export function parseResolvConf(text: string): ResolvConf {
  const words = text
    .split("\n")
    .map((line) =>
      line
        .replace(/[#;].*$/, "")
        .trim()
        .split(/\s+/),
    )
    .filter((line) => line.length > 1);
  const of = (key: string) => words.filter((line) => line[0] === key);
  return {
    nameservers: of("nameserver").flatMap((line) => line[1] ?? []),
    search: of("search").at(-1)?.slice(1) ?? [],
    options: of("options").flatMap((line) => line.slice(1)),
  };
}

function lines(list: readonly string[]): string {
  return list.map((line) => `${line}\n`).join("");
}
