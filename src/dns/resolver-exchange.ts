/**
 * One query to one resolver and back, over a socket of its own: an unpredictable source port, and the
 * kernel passes nobody else's datagrams. Sockets are made in the pod's namespace with the mark by which
 * the redirect rules leave them alone.
 */
import { createSocket } from "node:dgram";
import { Socket } from "node:net";
import type { NetnsFd } from "../engine/engine.ts";
import { type IpAddress, ipFamily } from "../mesh/ip-address.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";
import type { Native } from "../net/native.ts";
import type { Datagrams } from "../net/udp-counters.ts";
import type { Clock, Timer } from "../runtime/clock.ts";
import { errorText } from "../runtime/error-text.ts";
import { isDnsReply } from "../wire/dns-message.ts";
import { DnsError } from "./dns-error.ts";
import { framed, MessageStream } from "./message-stream.ts";

export interface ExchangeOptions {
  readonly resolver: IpAddress;
  readonly transport: "udp" | "tcp";
  /** From the socket to the answer. */
  readonly timeoutMs: number;
  /** TCP: a zone is asked for, which comes in many messages. */
  readonly transfer?: ZoneTransfer | undefined;
}

/** Over when nothing has come for the time-out, when the resolver closes, or by the signal. */
export interface ZoneTransfer {
  /** Gets each message, the first too. */
  readonly message: (reply: Uint8Array) => void;
  /** The one who asked has left. */
  readonly signal: AbortSignal;
}

export interface ResolverExchangeOptions {
  readonly netns: NetnsFd | undefined;
  readonly mark: number | undefined;
  /** Of the resolvers. */
  readonly port: number;
}

/** A datagram may be lost: it is sent again after these parts of the time-out. */
const RESEND_AFTER = [0.2, 0.6];
const WILDCARD = { 4: "0.0.0.0", 6: "::" } as const;

/** Ends an exchange that is under way. */
type Stop = (error: DnsError) => void;

export class ResolverExchange {
  readonly #native: Native;
  readonly #clock: Clock;
  readonly #options: ResolverExchangeOptions;
  /** By where they come from, see {@link sourceKey}. */
  readonly #open = new Map<string, Stop>();
  /** The namespace may be gone, and its descriptor another's. */
  #isClosed = false;
  #received = 0;
  #sent = 0;

  constructor(
    deps: { readonly native: Native; readonly clock: Clock },
    options: ResolverExchangeOptions,
  ) {
    this.#native = deps.native;
    this.#clock = deps.clock;
    this.#options = options;
  }

  /**
   * The reply as it came; the first of a transfer's, once that is over.
   *
   * @throws DnsError `timeout`, `unreachable` or `closed`.
   */
  readonly ask = (query: Uint8Array, options: ExchangeOptions): Promise<Uint8Array> =>
    new Promise((resolve, reject) => {
      if (this.#isClosed) return reject(closed());
      try {
        if (options.transport === "udp") this.#askByDatagram(query, options, resolve, reject);
        else this.#askByStream(query, options, resolve, reject);
      } catch (cause) {
        reject(unreachable(options.resolver, cause));
      }
    });

  /** So far. */
  get datagrams(): Datagrams {
    return { received: this.#received, sent: this.#sent };
  }

  /** Whether we are the ones who have sent something from there: nobody else has the port meanwhile. */
  isOwn(transport: "udp" | "tcp", peer: SocketAddress): boolean {
    return this.#open.has(sourceKey(transport, ipFamily(peer.ip), peer.port));
  }

  /** Ends what is under way; nothing is asked any more. Idempotent. */
  close(): void {
    this.#isClosed = true;
    for (const stop of this.#open.values()) stop(closed());
  }

  #askByDatagram(
    query: Uint8Array,
    { resolver, timeoutMs }: ExchangeOptions,
    resolve: (reply: Uint8Array) => void,
    reject: (error: DnsError) => void,
  ): void {
    const { fd, key } = this.#makeSocket(resolver, "udp");
    const type = ipFamily(resolver) === 4 ? "udp4" : "udp6";
    const socket = createSocket({ type, lookup: literal });
    const timers: Timer[] = [];
    let isOpen = true;
    const end = (): void => {
      isOpen = false;
      for (const timer of timers) timer.cancel();
      this.#open.delete(key);
      socket.removeAllListeners();
      // Closed anyhow; what it says of it is of no interest.
      socket.on("error", ignore);
      socket.close();
    };
    const fail = (error: DnsError): void => {
      // What was under way when it ended may fail, too.
      if (!isOpen) return;
      end();
      reject(error);
    };
    this.#open.set(key, fail);
    socket.on("error", (cause) => fail(unreachable(resolver, cause)));
    socket.on("message", (reply) => {
      this.#received++;
      if (!isDnsReply(reply, query)) return;
      end();
      resolve(reply);
    });
    socket.bind({ fd });
    const failed = (cause: unknown): void => {
      if (cause) fail(unreachable(resolver, cause));
    };
    const send = (): void => {
      this.#sent++;
      socket.send(query, failed);
    };
    const connected = (cause?: unknown): void => {
      failed(cause);
      if (!isOpen) return;
      send();
      for (const part of RESEND_AFTER) timers.push(this.#clock.after(timeoutMs * part, send));
    };
    socket.connect(this.#options.port, resolver, connected);
    timers.push(this.#clock.after(timeoutMs, () => fail(timeout(resolver))));
  }

  #askByStream(
    query: Uint8Array,
    { resolver, timeoutMs, transfer }: ExchangeOptions,
    resolve: (reply: Uint8Array) => void,
    reject: (error: DnsError) => void,
  ): void {
    if (transfer?.signal.aborted === true) {
      reject(clientLeft());
      return;
    }
    const { fd, key } = this.#makeSocket(resolver, "tcp");
    const socket = new Socket({ fd });
    const stream = new MessageStream();
    let timer: Timer | undefined;
    let first: Uint8Array | undefined;
    const end = (error: DnsError): void => {
      timer?.cancel();
      this.#open.delete(key);
      transfer?.signal.removeEventListener("abort", leave);
      socket.destroy();
      if (first === undefined) reject(error);
      else resolve(first);
    };
    const leave = (): void => end(clientLeft());
    const arm = (): void => {
      timer?.cancel();
      timer = this.#clock.after(timeoutMs, () => end(timeout(resolver)));
    };
    this.#open.set(key, end);
    transfer?.signal.addEventListener("abort", leave);
    socket.on("error", (cause) => end(unreachable(resolver, cause)));
    socket.on("close", () => end(unreachable(resolver, new Error("connection closed"))));
    socket.on("data", (chunk: Buffer) => {
      for (const message of stream.take(chunk)) {
        if (!isDnsReply(message, query)) continue;
        first ??= message;
        if (transfer === undefined) return void socket.destroy();
        transfer.message(message);
        arm();
      }
    });
    socket.connect({ host: resolver, port: this.#options.port, lookup: literal });
    socket.write(framed(query));
    arm();
  }

  /** Bound, so that {@link isOwn} knows it before anything is sent. @throws what the system says. */
  #makeSocket(
    resolver: IpAddress,
    transport: "udp" | "tcp",
  ): { readonly fd: number; readonly key: string } {
    const { netns, mark } = this.#options;
    const family = ipFamily(resolver);
    const { fd } = this.#native.socketInNamespace({
      family: family === 4 ? "ipv4" : "ipv6",
      type: transport === "udp" ? "dgram" : "stream",
      ...(netns === undefined ? {} : { netnsFd: netns.fd }),
      ...(mark === undefined ? {} : { mark }),
      bind: { ip: WILDCARD[family], port: 0 },
    });
    return { fd, key: sourceKey(transport, family, this.#native.localAddress(fd).port) };
  }
}

function sourceKey(transport: "udp" | "tcp", family: 4 | 6, port: number): string {
  return `${transport}${family}:${port}`;
}

function closed(): DnsError {
  return new DnsError("closed", "the server is closed");
}

function clientLeft(): DnsError {
  return new DnsError("closed", "the client has left");
}

function timeout(resolver: IpAddress): DnsError {
  return new DnsError("timeout", `request to ${resolver} timed out`);
}

function unreachable(resolver: IpAddress, cause: unknown): DnsError {
  return new DnsError("unreachable", `resolver ${resolver}: ${errorText(cause)}`, cause);
}

function ignore(): void {}

/** Resolvers are addresses: nobody is asked for them. */
export function literal(
  address: string,
  _options: unknown,
  callback: (error: null, address: string, family: number) => void,
): void {
  callback(null, address, address.includes(":") ? 6 : 4);
}
