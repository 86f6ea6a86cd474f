/** What the kernel loses between the namespaces of a lab, which no proxy can tell. */
import { readFileSync } from "node:fs";

/** Of the whole machine, since it was started. */
export interface NetworkLosses {
  /** Packets for which a processor's queue had no room (`net.core.netdev_max_backlog`). */
  readonly queues: number;
  /** Addresses that did not answer ARP: a connect fails with EHOSTUNREACH. */
  readonly unanswered: number;
  /** Neighbours for which the table had no room (`net.ipv4.neigh.default.gc_thresh3`). */
  readonly refused: number;
}

/** @returns zeros for what the kernel does not tell here. */
export function networkLosses(): NetworkLosses {
  // No heading; the second column of each processor.
  const queues = sum(rowsOf("/proc/net/softnet_stat").map((row) => row[1]));
  const neighbours = rowsOf("/proc/net/stat/arp_cache").slice(1);
  return {
    queues,
    unanswered: sum(neighbours.map((row) => row[6])),
    refused: sum(neighbours.map((row) => row[12])),
  };
}

/** @param before of the same machine. @returns one line, without its end. */
export function describeLosses(before: NetworkLosses, after: NetworkLosses): string {
  return (
    `the kernel meanwhile, on the whole machine: ${after.queues - before.queues} packets lost of full ` +
    `queues, ${after.unanswered - before.unanswered} addresses without an answer to ARP, ` +
    `${after.refused - before.refused} refused by a full table of neighbours`
  );
}

/** Hexadecimal numbers, NaN for words. */
function rowsOf(path: string): readonly (readonly number[])[] {
  let text = "";
  try {
    text = readFileSync(path, "utf8");
  } catch {
    // Containers do not have all of these.
  }
  const lines = text.split("\n").filter((line) => line !== "");
  return lines.map((line) =>
    line
      .trim()
      .split(/\s+/)
      .map((word) => Number(`0x${word}`)),
  );
}

function sum(numbers: readonly (number | undefined)[]): number {
  return numbers.reduce<number>((all, number) => all + (number ?? 0), 0);
}
