/** What two daemons say in their access logs and metrics, held against what the ends of connections saw. */
import { createInterface } from "node:readline";
import type { MeshLab } from "../mesh-lab.ts";
import { sampleSum } from "../metrics-text.ts";

const NODES = ["node-a", "node-b"] as const;

type Direction = "inbound" | "outbound";

/** Bytes from the client to the server, and back. */
export interface AccessEntry {
  readonly forth: number;
  readonly back: number;
  readonly error: string | undefined;
}

export class AccessLedger {
  readonly #lab: MeshLab;
  readonly #entries: Readonly<Record<Direction, Map<string, AccessEntry[]>>> = {
    inbound: new Map(),
    outbound: new Map(),
  };

  /** Hears what the daemons say from now on; nobody may have called through them before. */
  constructor(lab: MeshLab) {
    this.#lab = lab;
    for (const name of NODES) {
      const { stdout } = lab.node(name).process;
      if (stdout === null) throw new Error(`${name} has no output`);
      createInterface({ input: stdout }).on("line", (line) => this.#note(line));
    }
  }

  /** What was said so far of an application's connection, by the daemon that it met first. */
  entries(source: string): readonly AccessEntry[] {
    return this.#entries.outbound.get(source) ?? this.#entries.inbound.get(source) ?? [];
  }

  /** Of all lines of a direction. */
  total(direction: Direction): { forth: number; back: number; count: number } {
    const total = { forth: 0, back: 0, count: 0 };
    for (const { forth, back } of [...this.#entries[direction].values()].flat()) {
      total.forth += forth;
      total.back += back;
      total.count++;
    }
    return total;
  }

  /** Where the counters of a scrape differ from the sums of the lines. */
  async metricDifferences(): Promise<readonly string[]> {
    const texts = await Promise.all(NODES.map((name) => this.#lab.node(name).metrics()));
    const scraped = texts.join("\n");
    const byReporter = { source: this.total("outbound"), destination: this.total("inbound") };
    return Object.entries(byReporter).flatMap(([reporter, { forth, back, count }]) =>
      Object.entries({
        istio_tcp_received_bytes_total: forth,
        istio_tcp_sent_bytes_total: back,
        istio_tcp_connections_opened_total: count,
        istio_tcp_connections_closed_total: count,
      }).flatMap(([family, logged]) => {
        const counted = sampleSum(scraped, family, { reporter });
        return counted === logged
          ? []
          : `${family} of the ${reporter} is ${counted}, all lines say ${logged}`;
      }),
    );
  }

  #note(line: string): void {
    if (!line.includes('"scope":"access"') || !line.includes('"connection complete"')) return;
    const fields: Record<string, unknown> = JSON.parse(line);
    const direction = fields["direction"] === "inbound" ? "inbound" : "outbound";
    const [sent, received] = [Number(fields["bytes_sent"]), Number(fields["bytes_recv"])];
    const entry: AccessEntry = {
      ...(direction === "outbound"
        ? { forth: sent, back: received }
        : { forth: received, back: sent }),
      error: fields["error"] === undefined ? undefined : String(fields["error"]),
    };
    const source = String(fields["src.addr"]);
    const known = this.#entries[direction].get(source);
    if (known === undefined) this.#entries[direction].set(source, [entry]);
    else known.push(entry);
  }
}
