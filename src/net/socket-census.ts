/** The sockets of one network namespace: TCP by state and owner, and what passes there by UDP. */
import { closeSync, readFileSync, readSync, writeSync } from "node:fs";
import { getSystemErrorName } from "node:util";
import type { SocketAddress } from "../mesh/socket-address.ts";
import type { Native } from "./native.ts";
import { NetError } from "./net-error.ts";
import {
  type DiagEntry,
  type DiagQuestion,
  encodeDiagQuestion,
  NETLINK_SOCK_DIAG,
  takeDiagAnswer,
} from "./socket-diag.ts";
import { parseUdp6Counters, parseUdpCounters, type UdpCounters } from "./udp-counters.ts";

/** At its place the kernel's number of the state; the names are those of Prometheus' node exporter. */
const TCP_STATES = [
  undefined,
  "established",
  "syn_sent",
  "syn_recv",
  "fin_wait1",
  "fin_wait2",
  "time_wait",
  "close",
  "close_wait",
  "last_ack",
  "listen",
  "closing",
] as const;

export type TcpState = Exclude<(typeof TCP_STATES)[number], undefined>;

/** Whether a socket is one of ours; `unknown` where no mark tells ours apart. */
const OWNERS = ["proxy", "application", "unknown"] as const;

export type SocketOwner = (typeof OWNERS)[number];

export interface TcpCount {
  readonly owner: SocketOwner;
  readonly state: TcpState;
  readonly count: number;
}

export interface SocketCensus {
  /** No zeros. */
  readonly tcp: readonly TcpCount[];
  readonly udp: { readonly ipv4: UdpCounters; readonly ipv6: UdpCounters };
  /** Applications' datagram sockets that have one peer. */
  readonly connected: {
    readonly count: number;
    /** Of the first {@link PEERS_MAX}. */
    readonly peers: readonly SocketAddress[];
  };
}

export interface CensusOptions {
  /** `undefined`: the calling thread's own. */
  readonly netnsFd: number | undefined;
  /** SO_MARK of all our sockets there; `undefined` where they have none. */
  readonly mark: number | undefined;
}

/** A bit for each of {@link TCP_STATES}, and 12: handshakes of a listener, which are told as `syn_recv`. */
const ALL_STATES = 0x1ffe;
const ESTABLISHED = 1 << 1;
const FAMILIES = [4, 6] as const;
const PEERS_MAX = 32;
/** The kernel's largest message of a list. */
const ANSWER_BYTES_MAX = 32_768;
const ENOENT = "ENOENT";

interface DiagSocket {
  readonly fd: number;
  /** What is read of an answer. */
  readonly buffer: Uint8Array;
}

/**
 * Opens all that it needs at its first step, after which the descriptor of the namespace may go. Each
 * step handles at most a few hundred sockets; the counters of datagrams are of the last one.
 *
 * @throws an error of the system; NetError `socket-diag` where the kernel does not tell.
 */
export function* takeCensus(
  native: Native,
  { netnsFd, mark }: CensusOptions,
): Generator<undefined, SocketCensus> {
  const files: number[] = [];
  const keep = (fd: number): number => {
    files.push(fd);
    return fd;
  };
  try {
    const fd = keep(openDiag(native, netnsFd));
    const diag = { fd, buffer: new Uint8Array(ANSWER_BYTES_MAX) };
    const snmp = keep(native.openInNamespace("/proc/thread-self/net/snmp", netnsFd));
    const snmp6 = openSnmp6(native, netnsFd);
    if (snmp6 !== undefined) keep(snmp6);
    const ownerOf = (entry: DiagEntry): SocketOwner => {
      const marked = mark === undefined ? undefined : entry.mark;
      if (marked === undefined) return "unknown";
      return marked === mark ? "proxy" : "application";
    };
    const tcp = yield* countTcp(diag, ownerOf);
    const connected = yield* findPeers(diag, ownerOf);
    const ipv4 = parseUdpCounters(readFileSync(snmp, "utf8"));
    const ipv6 = parseUdp6Counters(snmp6 === undefined ? "" : readFileSync(snmp6, "utf8"));
    return { tcp, udp: { ipv4, ipv6 }, connected };
  } finally {
    for (const fd of files) closeSync(fd);
  }
}

function* countTcp(
  diag: DiagSocket,
  ownerOf: (entry: DiagEntry) => SocketOwner,
): Generator<undefined, TcpCount[]> {
  /** At the place of each state. */
  const counts: Readonly<Record<SocketOwner, number[]>> = {
    proxy: TCP_STATES.map(() => 0),
    application: TCP_STATES.map(() => 0),
    unknown: TCP_STATES.map(() => 0),
  };
  const take = (entry: DiagEntry): void => {
    const ofOwner = counts[ownerOf(entry)];
    ofOwner[entry.state] = (ofOwner[entry.state] ?? 0) + 1;
  };
  for (const family of FAMILIES) {
    yield* readSockets(diag, { family, protocol: "tcp", states: ALL_STATES }, take);
  }
  return OWNERS.flatMap((owner) =>
    TCP_STATES.flatMap((state, at) => {
      const count = counts[owner][at] ?? 0;
      return state === undefined || count === 0 ? [] : [{ owner, state, count }];
    }),
  );
}

function* findPeers(
  diag: DiagSocket,
  ownerOf: (entry: DiagEntry) => SocketOwner,
): Generator<undefined, SocketCensus["connected"]> {
  let count = 0;
  const peers: SocketAddress[] = [];
  const take = (entry: DiagEntry): void => {
    if (ownerOf(entry) === "proxy") return;
    count++;
    if (peers.length < PEERS_MAX) peers.push(entry.remote);
  };
  for (const family of FAMILIES) {
    yield* readSockets(diag, { family, protocol: "udp", states: ESTABLISHED }, take);
  }
  return { count, peers };
}

function openDiag(native: Native, netnsFd: number | undefined): number {
  const { fd } = native.socketInNamespace({
    family: "netlink",
    type: "raw",
    protocol: NETLINK_SOCK_DIAG,
    ...(netnsFd === undefined ? {} : { netnsFd }),
  });
  return fd;
}

/** `undefined` on a machine without IPv6. */
function openSnmp6(native: Native, netnsFd: number | undefined): number | undefined {
  try {
    return native.openInNamespace("/proc/thread-self/net/snmp6", netnsFd);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === ENOENT) return undefined;
    throw error;
  }
}

/** Steps from one part of the answer to the next. */
function* readSockets(
  { fd, buffer }: DiagSocket,
  question: DiagQuestion,
  take: (entry: DiagEntry) => void,
): Generator<undefined> {
  writeSync(fd, encodeDiagQuestion(question));
  for (;;) {
    const errno = takeDiagAnswer(buffer.subarray(0, readSync(fd, buffer)), take);
    yield;
    if (errno === 0) return;
    if (errno === undefined) continue;
    const code = getSystemErrorName(-errno);
    const { family, protocol } = question;
    // IPv6 may be missing, and UDP's sockets are an addition; without TCP there is nothing to tell.
    if (code === ENOENT && (family === 6 || protocol === "udp")) return;
    throw new NetError("socket-diag", `the kernel does not list sockets of ${protocol}: ${code}`);
  }
}
