/**
 * A network in memory that implements the engine port: pods with the redirect rules of a captured
 * namespace, sockets with half-close and reset, relays, and tunnels that carry requests. Nothing
 * takes time except what the clock says, so a story runs in microseconds.
 *
 * What it leaves out on purpose: back pressure (the engines' own tests have it) and real
 * certificates: {@link memoryCertificate} makes unsigned ones, roots match when they are equal.
 */
import type {
  AcceptTunnelOptions,
  ClientTunnel,
  ConnectOptions,
  DialTunnelOptions,
  End,
  Engine,
  Listener,
  ListenOptions,
  NetnsFd,
  Relay,
  RelayOutcome,
  ServerTunnel,
  SocketEnd,
  TunnelOptions,
} from "../../src/engine/engine.ts";
import { EngineError, systemErrorText } from "../../src/engine/engine-error.ts";
import { type IpAddress, isLoopback } from "../../src/mesh/ip-address.ts";
import { parseSocketAddress, type SocketAddress } from "../../src/mesh/socket-address.ts";
import type { Clock } from "../../src/runtime/clock.ts";
import { MemoryRelay } from "./memory-relay.ts";
import { join, MemorySocket } from "./memory-socket.ts";
import { MemoryTunnel, shakeHands } from "./memory-tunnel.ts";

const OUTBOUND_PORT = 15001;
const PLAINTEXT_PORT = 15006;
const HBONE_PORT = 15008;

/** Where a new socket's other side goes. */
export interface Acceptor {
  readonly address: SocketAddress;
  accept(socket: MemorySocket): void;
}

export class MemoryNetwork {
  readonly engine: MemoryEngine;
  /** Addresses that never answer. */
  readonly silent: Set<string> = new Set();
  /** Milliseconds that an engine's connect to an address takes; at once by default. */
  readonly delays: Map<string, number> = new Map();
  /** Whether IP_TRANSPARENT may be set. */
  transparent = true;
  /** Tunnels dialled so far, also those that failed. */
  dialCount = 0;
  readonly clock: Clock;
  readonly #pods = new Map<string, MemoryPod>();
  #nextPort = 40_000;
  #nextFd = 100;

  constructor(clock: Clock) {
    this.clock = clock;
    this.engine = new MemoryEngine(this);
  }

  /** @param rules `captured`: redirected as by the node agent. */
  pod(ip: string, rules: "captured" | "plain" = "plain"): MemoryPod {
    return this.#add(ip, rules === "captured", { fd: this.#nextFd++ });
  }

  /** The namespace of the engine's own process. Make at most one. */
  host(ip: string): MemoryPod {
    return this.#add(ip, false, undefined);
  }

  /** Of a socket that asks for none in particular. */
  freePort(): number {
    return this.#nextPort++;
  }

  podOf(netns: NetnsFd | undefined): MemoryPod {
    for (const pod of this.#pods.values()) if (pod.netns?.fd === netns?.fd) return pod;
    throw new Error("no pod has that namespace");
  }

  #add(ip: string, captured: boolean, netns: NetnsFd | undefined): MemoryPod {
    const pod = new MemoryPod(this, ip as IpAddress, captured, netns);
    this.#pods.set(ip, pod);
    return pod;
  }

  /** @param marked sockets of the proxy itself are not captured. */
  connect(
    from: MemoryPod,
    to: SocketAddress,
    source: IpAddress | undefined,
    marked: boolean,
  ): MemorySocket {
    const local = isLoopback(to.ip);
    const pod = local ? from : this.#pods.get(to.ip);
    const peer = {
      ip: source ?? (local ? to.ip : from.ip),
      port: this.freePort(),
    };
    const leaves = pod !== from;
    let acceptor: Acceptor | undefined;
    if (leaves && from.captured && !marked) acceptor = from.acceptors.get(OUTBOUND_PORT);
    else if (pod === undefined) throw systemError("EHOSTUNREACH");
    else if (leaves && pod.captured && to.port !== HBONE_PORT) {
      acceptor = pod.acceptors.get(PLAINTEXT_PORT);
    } else acceptor = pod.acceptors.get(to.port);
    if (acceptor === undefined) throw systemError("ECONNREFUSED");
    const client = new MemorySocket(peer, to, to);
    const server = new MemorySocket(to, peer, to);
    join(client, server);
    acceptor.accept(server);
    return client;
  }
}

/** A network namespace with one address. */
export class MemoryPod {
  readonly ip: IpAddress;
  readonly captured: boolean;
  readonly netns: NetnsFd | undefined;
  readonly acceptors: Map<number, Acceptor> = new Map();
  readonly #network: MemoryNetwork;

  constructor(
    network: MemoryNetwork,
    ip: IpAddress,
    captured: boolean,
    netns: NetnsFd | undefined,
  ) {
    this.#network = network;
    this.ip = ip;
    this.captured = captured;
    this.netns = netns;
  }

  /** An application's connect. */
  dial(to: string): MemorySocket {
    const address = parseSocketAddress(to);
    if (address === undefined) throw new Error(`not an address: ${to}`);
    return this.#network.connect(this, address, undefined, false);
  }

  /** An application that listens. */
  serve(port: number, accept: (socket: MemorySocket) => void): void {
    const address = { ip: this.ip, port };
    this.acceptors.set(port, {
      address,
      accept: (socket) => queueMicrotask(() => accept(socket)),
    });
  }

  stopServing(port: number): void {
    this.acceptors.delete(port);
  }
}

/** What the two ends of a dialled tunnel know of each other before the handshake. */
interface Handshake {
  accepted(options: AcceptTunnelOptions): ServerTunnel | undefined;
}

export class MemoryEngine implements Engine {
  /** Relays that have not finished. */
  readonly relays: Set<MemoryRelay> = new Set();
  /** Every connect asked for, in order. */
  readonly connects: ConnectOptions[] = [];
  readonly listens: ListenOptions[] = [];
  readonly network: MemoryNetwork;
  readonly #open = new Set<{ close(): void }>();
  /** By the server's side of the connection. */
  readonly #handshakes = new WeakMap<End, Handshake>();

  constructor(network: MemoryNetwork) {
    this.network = network;
  }

  listen(options: ListenOptions): Listener {
    this.listens.push(options);
    const { acceptors } = this.network.podOf(options.netns);
    const port = options.address.port || this.network.freePort();
    const address = { ip: options.address.ip, port };
    if (options.transparent === "required" && !this.network.transparent) {
      throw systemError("EPERM");
    }
    if (acceptors.has(port)) throw systemError("EADDRINUSE");
    const waiting: MemorySocket[] = [];
    let accepted: ((end: SocketEnd) => void) | undefined;
    const acceptor: Acceptor = {
      address,
      accept(socket) {
        if (accepted === undefined) waiting.push(socket);
        else queueMicrotask(() => accepted?.(socket));
      },
    };
    acceptors.set(port, acceptor);
    const listener: Listener = {
      address,
      transparent: options.transparent !== "off" && this.network.transparent,
      start(take) {
        accepted = take;
        for (const socket of waiting.splice(0)) queueMicrotask(() => take(socket));
      },
      close: () => {
        this.#open.delete(listener);
        if (acceptors.get(port) === acceptor) acceptors.delete(port);
        for (const socket of waiting.splice(0)) socket.reset();
      },
    };
    this.#open.add(listener);
    return listener;
  }

  async connect(options: ConnectOptions): Promise<MemorySocket> {
    await this.#reach(options);
    return this.#connectNow(options);
  }

  relay(downstream: End, upstream: End, finished: (outcome: RelayOutcome) => void): Relay {
    const relay = new MemoryRelay(
      downstream as MemorySocket,
      upstream as MemorySocket,
      this.network.clock,
      (outcome) => {
        this.relays.delete(relay);
        finished(outcome);
      },
    );
    this.relays.add(relay);
    return relay;
  }

  async dialTunnel(options: DialTunnelOptions): Promise<ClientTunnel> {
    this.network.dialCount++;
    await this.#reach(options.connect);
    const socket = this.#connectNow(options.connect);
    const { promise, resolve, reject } = Promise.withResolvers<ClientTunnel>();
    const fail = (error: EngineError): void => {
      timer.cancel();
      reject(error);
    };
    const timer = this.network.clock.after(options.settings.handshakeTimeoutMs, () => {
      fail(new EngineError("handshake", "deadline has elapsed"));
      socket.close();
    });
    // The listening side closed or reset before it answered.
    socket.onReadable = () => {
      fail(new EngineError("handshake", "tls handshake eof"));
      socket.close();
    };
    this.#handshakes.set(socket.otherSide, {
      accepted: (accepting) => {
        const outcome = shakeHands(options, accepting);
        if (outcome.kind === "refused") {
          fail(outcome.client);
          queueMicrotask(() => accepting.closed(outcome.server));
          return undefined;
        }
        timer.cancel();
        socket.onReadable = undefined;
        const tunnel = new MemoryTunnel(options, accepting, socket.peer);
        this.#open.add({ close: tunnel.client.destroy });
        queueMicrotask(() => {
          accepting.opened({ leafDer: outcome.clientLeaf });
          resolve(tunnel.client);
        });
        return tunnel.server;
      },
    });
    return promise;
  }

  /** Tunnels are no bytes here, so that none can be inside of another. */
  nestTunnel(outer: End, _options: TunnelOptions, released: () => void): Promise<ClientTunnel> {
    outer.close();
    queueMicrotask(released);
    return Promise.reject(
      new EngineError("handshake", "no tunnel in a tunnel of the memory network"),
    );
  }

  acceptTunnel(end: SocketEnd, options: AcceptTunnelOptions): ServerTunnel {
    const socket = end as MemorySocket;
    const handshake = this.#handshakes.get(socket);
    const server = handshake?.accepted(options);
    if (server !== undefined) return server;
    let told = handshake !== undefined;
    const refuse = (text: string): void => {
      if (told) return;
      told = true;
      socket.close();
      options.closed(new EngineError("handshake", text));
    };
    const look = (): void => {
      if (socket.read() !== "") {
        socket.write("\x15\x03\x03\x00\x02\x02\x32");
        refuse("Custom { kind: InvalidData, error: InvalidMessage(InvalidContentType) }");
      } else if (socket.readEnd !== "open") {
        refuse('Custom { kind: UnexpectedEof, error: "tls handshake eof" }');
      }
    };
    socket.onReadable = look;
    queueMicrotask(look);
    const destroy = (): void => {
      if (told) return;
      told = true;
      socket.close();
      queueMicrotask(() => options.closed(undefined));
    };
    return { drain: destroy, destroy };
  }

  close(): void {
    for (const relay of this.relays) relay.stop("reset");
    for (const one of this.#open) one.close();
    this.#open.clear();
  }

  /** Takes the time that a connect takes. */
  async #reach(options: ConnectOptions): Promise<void> {
    this.connects.push(options);
    const { remote, timeoutMs } = options;
    if (this.network.silent.has(remote.ip)) {
      await new Promise<void>((resolve) => this.network.clock.after(timeoutMs, resolve));
      throw new EngineError("connect-timeout", "deadline has elapsed");
    }
    const delayMs = this.network.delays.get(remote.ip);
    if (delayMs !== undefined) {
      await new Promise<void>((resolve) => this.network.clock.after(delayMs, resolve));
    }
  }

  /** The other side is told in a microtask, so whoever calls may prepare for it. */
  #connectNow({ netns, remote, source, mark }: ConnectOptions): MemorySocket {
    return this.network.connect(this.network.podOf(netns), remote, source, mark !== undefined);
  }
}

function systemError(errno: string): EngineError {
  return new EngineError("system", systemErrorText(errno), { errno });
}

/** Runs everything that is due without time passing. */
export function quiet(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
