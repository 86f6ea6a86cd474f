/** How many datagrams the sockets of a network namespace have had: `snmp` and `snmp6` of /proc/net. */

/** Messages of UDP. */
export interface Datagrams {
  readonly received: number;
  readonly sent: number;
}

/**
 * Since the namespace began. The kernel counts a datagram when an application takes it, or has sent it;
 * those that it takes or sends together (UDP GRO and GSO) may count as one.
 *
 * @see RFC 4113
 */
export interface UdpCounters extends Datagrams {
  /** Nobody had the port. */
  readonly unwanted: number;
  /** Lost before an application took them, as their socket's buffer was full or for another reason. */
  readonly errors: number;
}

/** @param text of `/proc/net/snmp`; zeros where it does not speak of UDP. */
export function parseUdpCounters(text: string): UdpCounters {
  const [names = "", values = ""] = text.split("\n").filter((line) => line.startsWith("Udp: "));
  const numbers = values.split(" ");
  return countersOf(new Map(names.split(" ").map((name, at) => [name, Number(numbers[at])])));
}

/** @param text of `/proc/net/snmp6`. */
export function parseUdp6Counters(text: string): UdpCounters {
  const lines = text.matchAll(/^Udp6(\w+)\s+(\d+)$/gm);
  return countersOf(new Map(Array.from(lines, ([, name = "", value]) => [name, Number(value)])));
}

/** Names of RFC 1213, as the kernel has them. */
function countersOf(named: ReadonlyMap<string, number>): UdpCounters {
  const count = (name: string): number => named.get(name) || 0;
  return {
    received: count("InDatagrams"),
    sent: count("OutDatagrams"),
    unwanted: count("NoPorts"),
    errors: count("InErrors"),
  };
}
