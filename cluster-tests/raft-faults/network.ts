/** The network between the managers: one switch, and what it loses. Packets are dropped where they arrive, so a sender never notices. */
import { must } from "../lib/command.ts";
import { Namespaces } from "./namespaces.ts";

/** One direction between two machines, by their indexes. */
export interface Direction {
  readonly from: number;
  readonly to: number;
}
/** A TCP connection, as its end at `to` sees it. */
interface Connection extends Direction {
  readonly fromPort: number;
  readonly toPort: number;
}

/** Port of the managers' connections. */
const clusterPort = 2377;

export class FaultyNetwork {
  readonly #bridge: Namespaces;
  readonly #machines: readonly Namespaces[];

  private constructor(bridge: Namespaces, machines: readonly Namespaces[]) {
    this.#bridge = bridge;
    this.#machines = machines;
  }

  /** Address of the machine with this index. */
  static address(index: number): string {
    return `10.198.0.${index + 1}`;
  }

  /** Connects the machines. */
  static async create(name: string, machines: readonly Namespaces[]): Promise<FaultyNetwork> {
    const bridge = await Namespaces.create(`${name}-switch`);
    try {
      await bridge.inside(..."ip link add rf0 type bridge forward_delay 0".split(" "));
      await bridge.inside("ip", "link", "set", "rf0", "up");
      for (const [index, machine] of machines.entries()) {
        const port = `rf-p${index + 1}`;
        await machine.inside("ip", "link", "add", "eth0", "type", "veth", "peer", "name", port);
        await must("nsenter", [
          ...["-t", String(machine.initPid), "-n", "--"],
          ...["ip", "link", "set", port, "netns", String(bridge.initPid)],
        ]);
        await bridge.inside("ip", "link", "set", port, "master", "rf0", "up");
        const address = `${FaultyNetwork.address(index)}/24`;
        await machine.inside("ip", "address", "add", address, "dev", "eth0");
        await machine.inside("ip", "link", "set", "eth0", "up");
      }
    } catch (error) {
      await bridge.close();
      throw error;
    }
    return new FaultyNetwork(bridge, machines);
  }

  /** Loses everything in these directions, and nothing else, from now on. */
  async lose(directions: readonly Direction[]): Promise<void> {
    await this.#install(
      directions.map(({ from, to }) => ({ to, match: `ip saddr ${FaultyNetwork.address(from)}` })),
    );
  }

  /** Loses both directions of the connections that are open now between `one` and all others; new ones may be made. */
  async loseConnectionsOf(one: number): Promise<number> {
    const found: Connection[] = [];
    const machine = this.#machines[one];
    if (machine === undefined) return 0;
    const lines = await machine.withNetwork("ss", "-tnH", "state", "established");
    for (const line of lines.split("\n")) {
      const [, , here = "", there = ""] = line.trim().split(/\s+/);
      const other = this.#machines.findIndex(
        (_, index) => there.slice(0, there.lastIndexOf(":")) === FaultyNetwork.address(index),
      );
      const [herePort, therePort] = [here, there].map((end) =>
        Number(end.slice(end.lastIndexOf(":") + 1)),
      );
      if (other < 0 || herePort === undefined || therePort === undefined) continue;
      if (herePort !== clusterPort && therePort !== clusterPort) continue;
      found.push({ from: other, to: one, fromPort: therePort, toPort: herePort });
      found.push({ from: one, to: other, fromPort: herePort, toPort: therePort });
    }
    await this.#install(
      found.map(({ from, to, fromPort, toPort }) => ({
        to,
        match: `ip saddr ${FaultyNetwork.address(from)} tcp sport ${fromPort} tcp dport ${toPort}`,
      })),
    );
    return found.length / 2;
  }

  async #install(rules: readonly { readonly to: number; readonly match: string }[]): Promise<void> {
    await Promise.all(
      this.#machines.map(async (machine, index) => {
        const own = rules.filter(({ to }) => to === index).map(({ match }) => `${match} drop`);
        // One transaction: the table is there, then gone, then what it must be.
        const script = [
          "table inet raft_faults",
          "delete table inet raft_faults",
          "table inet raft_faults {",
          "chain lost {",
          "type filter hook input priority -300; policy accept;",
          ...own,
          "}",
          "}",
        ];
        await machine.withNetwork("nft", script.join("\n"));
      }),
    );
  }

  async close(): Promise<void> {
    await this.#bridge.close();
  }
}
