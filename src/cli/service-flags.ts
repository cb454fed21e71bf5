/** The flags that say what a service is; create and update share most of them. */
import { failure } from "../lib/errors.ts";
import type { FlagKind, FlagSpec, Flags } from "./flag.ts";

type Row = readonly [
  name: string,
  kind: FlagKind,
  help: string,
  shown?: string | undefined,
  short?: string,
];

const shared: readonly Row[] = [
  ["cap-add", "list", "Add Linux capabilities"],
  ["cap-drop", "list", "Drop Linux capabilities"],
  [
    "credential-spec",
    "string",
    "Credential spec for managed service account (Windows only)",
    "credential-spec",
  ],
  [
    "detach",
    "bool",
    "Exit immediately instead of waiting for the service to converge",
    undefined,
    "d",
  ],
  ["endpoint-mode", "string", "Endpoint mode (vip or dnsrr)"],
  ["entrypoint", "string", "Overwrite the default ENTRYPOINT of the image", "command"],
  ["health-cmd", "string", "Command to run to check health"],
  ["health-interval", "duration", "Time between running the check (ms|s|m|h)"],
  ["health-retries", "int", "Consecutive failures needed to report unhealthy"],
  [
    "health-start-interval",
    "duration",
    "Time between running the check during the start period (ms|s|m|h)",
  ],
  [
    "health-start-period",
    "duration",
    "Start period for the container to initialize before counting retries towards unstable (ms|s|m|h)",
  ],
  ["health-timeout", "duration", "Maximum time to allow one check to run (ms|s|m|h)"],
  ["hostname", "string", "Container hostname"],
  [
    "init",
    "bool",
    "Use an init inside each service container to forward signals and reap processes",
  ],
  ["isolation", "string", "Service container isolation mode"],
  ["limit-cpu", "decimal", "Limit CPUs"],
  ["limit-memory", "bytes", "Limit Memory"],
  ["limit-pids", "int", "Limit maximum number of processes (default 0 = unlimited)"],
  ["log-driver", "string", "Logging driver for service"],
  ["log-opt", "list", "Logging driver options"],
  [
    "max-concurrent",
    "uint",
    "Number of job tasks to run concurrently (default equal to --replicas)",
  ],
  ["no-healthcheck", "bool", "Disable any container-specified HEALTHCHECK"],
  [
    "no-resolve-image",
    "bool",
    "Do not query the registry to resolve image digest and supported platforms",
  ],
  ["oom-score-adj", "int", "Tune host's OOM preferences (-1000 to 1000)"],
  ["quiet", "bool", "Suppress progress output", undefined, "q"],
  ["read-only", "bool", "Mount the container's root filesystem as read only"],
  ["replicas", "uint", "Number of tasks"],
  ["replicas-max-per-node", "uint", "Maximum number of tasks per node (default 0 = unlimited)"],
  ["reserve-cpu", "decimal", "Reserve CPUs"],
  ["reserve-memory", "bytes", "Reserve Memory"],
  ["restart-condition", "string", 'Restart when condition is met ("none", "on-failure", "any")'],
  ["restart-delay", "duration", "Delay between restart attempts (ns|us|ms|s|m|h)"],
  ["restart-max-attempts", "uint", "Maximum number of restarts before giving up"],
  ["restart-window", "duration", "Window used to evaluate the restart policy (ns|us|ms|s|m|h)"],
  ["rollback-delay", "duration", "Delay between task rollbacks (ns|us|ms|s|m|h)"],
  ["rollback-failure-action", "string", 'Action on rollback failure ("pause", "continue")'],
  ["rollback-max-failure-ratio", "float", "Failure rate to tolerate during a rollback"],
  [
    "rollback-monitor",
    "duration",
    "Duration after each task rollback to monitor for failure (ns|us|ms|s|m|h)",
  ],
  ["rollback-order", "string", 'Rollback order ("start-first", "stop-first")'],
  [
    "rollback-parallelism",
    "uint",
    "Maximum number of tasks rolled back simultaneously (0 to roll back all at once)",
  ],
  [
    "stop-grace-period",
    "duration",
    "Time to wait before force killing a container (ns|us|ms|s|m|h)",
  ],
  ["stop-signal", "string", "Signal to stop the container"],
  ["tty", "bool", "Allocate a pseudo-TTY", undefined, "t"],
  ["update-delay", "duration", "Delay between updates (ns|us|ms|s|m|h)"],
  ["update-failure-action", "string", 'Action on update failure ("pause", "continue", "rollback")'],
  ["update-max-failure-ratio", "float", "Failure rate to tolerate during an update"],
  [
    "update-monitor",
    "duration",
    "Duration after each task update to monitor for failure (ns|us|ms|s|m|h)",
  ],
  ["update-order", "string", 'Update order ("start-first", "stop-first")'],
  [
    "update-parallelism",
    "uint",
    "Maximum number of tasks updated simultaneously (0 to update all at once)",
  ],
  ["user", "string", "Username or UID (format: <name|uid>[:<group|gid>])", undefined, "u"],
  ["with-registry-auth", "bool", "Send registry authentication details to swarm agents"],
  ["workdir", "string", "Working directory inside the container", undefined, "w"],
];
const createOnly: readonly Row[] = [
  ["config", "list", "Specify configurations to expose to the service", "config"],
  ["constraint", "list", "Placement constraints"],
  ["container-label", "list", "Container labels"],
  ["dns", "list", "Set custom DNS servers"],
  ["dns-option", "list", "Set DNS options"],
  ["dns-search", "list", "Set custom DNS search domains"],
  ["env", "list", "Set environment variables", undefined, "e"],
  ["env-file", "list", "Read in a file of environment variables"],
  ["generic-resource", "list", "User defined resources"],
  ["group", "list", "Set one or more supplementary user groups for the container"],
  ["host", "list", "Set one or more custom host-to-IP mappings (host:ip)"],
  ["label", "list", "Service labels", undefined, "l"],
  ["mode", "string", 'Service mode ("replicated", "global", "replicated-job", "global-job")'],
  ["mount", "list", "Attach a filesystem mount to the service", "mount"],
  ["name", "string", "Service name"],
  ["network", "list", "Network attachments", "network"],
  ["placement-pref", "list", "Add a placement preference", "pref"],
  ["publish", "list", "Publish a port as a node port", "port", "p"],
  ["secret", "list", "Specify secrets to expose to the service", "secret"],
  ["sysctl", "list", "Sysctl options"],
  ["ulimit", "list", "Ulimit options", "ulimit"],
];
const updateOnly: readonly Row[] = [
  ["args", "string", "Service command args", "command"],
  ["config-add", "list", "Add or update a config file on a service", "config"],
  ["config-rm", "list", "Remove a configuration file"],
  ["constraint-add", "list", "Add or update a placement constraint"],
  ["constraint-rm", "list", "Remove a constraint"],
  ["container-label-add", "list", "Add or update a container label"],
  ["container-label-rm", "list", "Remove a container label by its key"],
  ["dns-add", "list", "Add or update a custom DNS server"],
  ["dns-option-add", "list", "Add or update a DNS option"],
  ["dns-option-rm", "list", "Remove a DNS option"],
  ["dns-rm", "list", "Remove a custom DNS server"],
  ["dns-search-add", "list", "Add or update a custom DNS search domain"],
  ["dns-search-rm", "list", "Remove a DNS search domain"],
  ["env-add", "list", "Add or update an environment variable"],
  ["env-rm", "list", "Remove an environment variable"],
  ["force", "bool", "Force update even if no changes require it"],
  ["generic-resource-add", "list", "Add a Generic resource"],
  ["generic-resource-rm", "list", "Remove a Generic resource"],
  ["group-add", "list", "Add an additional supplementary user group to the container"],
  ["group-rm", "list", "Remove a previously added supplementary user group from the container"],
  ["host-add", "list", "Add a custom host-to-IP mapping (host:ip)"],
  ["host-rm", "list", "Remove a custom host-to-IP mapping (host:ip)"],
  ["image", "string", "Service image tag"],
  ["label-add", "list", "Add or update a service label"],
  ["label-rm", "list", "Remove a label by its key"],
  ["mount-add", "list", "Add or update a mount on a service", "mount"],
  ["mount-rm", "list", "Remove a mount by its target path"],
  ["network-add", "list", "Add a network", "network"],
  ["network-rm", "list", "Remove a network"],
  ["placement-pref-add", "list", "Add a placement preference", "pref"],
  ["placement-pref-rm", "list", "Remove a placement preference", "pref"],
  ["publish-add", "list", "Add or update a published port", "port"],
  ["publish-rm", "list", "Remove a published port by its target port", "port"],
  ["rollback", "bool", "Rollback to previous specification"],
  ["secret-add", "list", "Add or update a secret on a service", "secret"],
  ["secret-rm", "list", "Remove a secret"],
  ["sysctl-add", "list", "Add or update a Sysctl option"],
  ["sysctl-rm", "list", "Remove a Sysctl option"],
  ["ulimit-add", "list", "Add or update a ulimit option", "ulimit"],
  ["ulimit-rm", "list", "Remove a ulimit option"],
];

export const serviceCreateFlags: readonly FlagSpec[] = [...shared, ...createOnly].map(flag);
export const serviceUpdateFlags: readonly FlagSpec[] = [...shared, ...updateOnly].map(flag);

/** Docker's options that this version has not: known, so that they are refused by name and not as unknown. */
const notYet = ["config", "secret", "credential-spec", "generic-resource", "max-concurrent"];

/** Throws `not-implemented` for the first flag that this version cannot carry out. */
export function refuseUnsupported(command: string, flags: Flags): void {
  for (const name of notYet) {
    for (const given of [name, `${name}-add`, `${name}-rm`]) {
      if (flags.has(given)) {
        throw failure(
          "not-implemented",
          `${command}: --${given} is not supported by this version of shoal`,
        );
      }
    }
  }
}

function flag([name, kind, help, shown, short]: Row): FlagSpec {
  return {
    name,
    kind,
    help,
    ...(shown === undefined ? {} : { shown }),
    ...(short === undefined ? {} : { short }),
  };
}
