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
  HalfEnd,
  HeaderFields,
  Listener,
  ListenOptions,
  NetnsFd,
  Relay,
  RelayOutcome,
  ServerTunnel,
  SocketEnd,
  TunnelAnswer,
  TunnelClosed,
  TunnelOptions,
  TunnelRequest,
} from "../../src/engine/engine.ts";
import { EngineError, systemErrorText } from "../../src/engine/engine-error.ts";
import { revokedPeer } from "../../src/engine/handshake-error.ts";
import { formatSpiffeId, type Identity } from "../../src/mesh/identity.ts";
import { type IpAddress, isLoopback } from "../../src/mesh/ip-address.ts";
import { parseSocketAddress, type SocketAddress } from "../../src/mesh/socket-address.ts";
import type { WorkloadCertificate } from "../../src/mesh/workload-certificate.ts";
import type { Clock } from "../../src/runtime/clock.ts";

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

type ReadEnd = "open" | "fin" | "reset";

/** One side of a connection or of a tunnel stream; also what test applications hold. */
export class MemorySocket implements SocketEnd {
  readonly local: SocketAddress;
  readonly peer: SocketAddress;
  readonly originalDestination: SocketAddress;
  /** Called after something changed, never from inside a call of this object. */
  onReadable: (() => void) | undefined;
  /** Called once, when this side can neither read nor write any more. */
  onEnded: (() => void) | undefined;
  #other: MemorySocket | undefined;
  #unread = "";
  #readEnd: ReadEnd = "open";
  #writeEnded = false;
  #closed = false;
  #toldEnded = false;

  constructor(local: SocketAddress, peer: SocketAddress, originalDestination: SocketAddress) {
    this.local = local;
    this.peer = peer;
    this.originalDestination = originalDestination;
  }

  /** How reading ended, seen by whoever has read everything before. */
  get readEnd(): ReadEnd {
    return this.#readEnd;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** How much has arrived and was not taken. */
  get peekLength(): number {
    return this.#unread.length;
  }

  /** Takes what has arrived; each character is a byte. */
  read(): string {
    const text = this.#unread;
    this.#unread = "";
    return text;
  }

  async readFirst(byteCount: number): Promise<Uint8Array> {
    while (this.#unread.length < byteCount) {
      if (this.#closed || this.#readEnd !== "open") {
        throw new EngineError("disconnected", "early eof");
      }
      await new Promise<void>((resolve) => {
        this.onReadable = resolve;
        this.onEnded = resolve;
      });
    }
    const text = this.#unread.slice(0, byteCount);
    this.#unread = this.#unread.slice(byteCount);
    return Buffer.from(text, "latin1");
  }

  writeFirst(bytes: Uint8Array): void {
    this.write(Buffer.from(bytes).toString("latin1"));
  }

  /** @returns false when nobody can receive it any more. */
  write(text: string): boolean {
    const other = this.#other;
    if (this.#closed || this.#writeEnded || this.#readEnd === "reset" || other === undefined) {
      return false;
    }
    if (other.closed) {
      this.receiveReset();
      return false;
    }
    other.receive(text);
    return true;
  }

  /** Half-close. */
  end(): void {
    if (this.#closed || this.#writeEnded) return;
    this.#writeEnded = true;
    this.#other?.receiveFin();
    this.#checkEnded();
  }

  close(): void {
    if (this.#closed) return;
    if (this.#unread !== "") {
      this.reset();
      return;
    }
    this.end();
    this.#closed = true;
    this.#checkEnded();
  }

  reset(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#unread = "";
    this.#other?.receiveReset();
    this.#checkEnded();
  }

  /** Makes this the other side of a socket. */
  attach(other: MemorySocket): void {
    this.#other = other;
  }

  get otherSide(): MemorySocket {
    if (this.#other === undefined) throw new Error("a socket has two sides");
    return this.#other;
  }

  receive(text: string): void {
    this.#unread += text;
    this.#changed();
  }

  receiveFin(): void {
    if (this.#closed || this.#readEnd !== "open") return;
    this.#readEnd = "fin";
    this.#changed();
  }

  receiveReset(): void {
    if (this.#closed || this.#readEnd === "reset") return;
    this.#readEnd = "reset";
    this.#changed();
  }

  #changed(): void {
    queueMicrotask(() => this.onReadable?.());
    this.#checkEnded();
  }

  #checkEnded(): void {
    const both = this.#writeEnded && this.#readEnd === "fin";
    if (this.#toldEnded || !(this.#closed || both || this.#readEnd === "reset")) return;
    this.#toldEnded = true;
    queueMicrotask(() => this.onEnded?.());
  }
}

function join(one: MemorySocket, other: MemorySocket): void {
  one.attach(other);
  other.attach(one);
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

type HandshakeOutcome =
  | { readonly kind: "done"; readonly clientLeaf: Uint8Array }
  | { readonly kind: "refused"; readonly client: EngineError; readonly server: EngineError };

function shakeHands(client: DialTunnelOptions, server: AcceptTunnelOptions): HandshakeOutcome {
  const alert = (name: string): string =>
    `Custom { kind: InvalidData, error: AlertReceived(${name}) }`;
  const ours = client.tls.certificate;
  const theirs = server.tls.certificate;
  if (!trusts(ours, theirs) || !trusts(theirs, ours)) {
    return {
      kind: "refused",
      client: new EngineError("handshake", "invalid peer certificate: UnknownIssuer"),
      server: new EngineError("handshake", alert("UnknownCA")),
    };
  }
  if (client.tls.isRevoked?.(chainOf(theirs))) {
    return {
      kind: "refused",
      client: revokedPeer("client"),
      server: new EngineError("handshake", alert("CertificateRevoked")),
    };
  }
  const refusedServer = client.tls.verifyPeer({ leafDer: leafOf(theirs) });
  if (refusedServer !== undefined) {
    return {
      kind: "refused",
      client: new EngineError("peer-identity", refusedServer),
      server: new EngineError("handshake", alert("CertificateUnknown")),
    };
  }
  if (server.tls.isRevoked?.(chainOf(ours))) {
    return {
      kind: "refused",
      client: new EngineError("handshake", "received fatal alert: CertificateRevoked"),
      server: revokedPeer("server"),
    };
  }
  const refusedClient = server.tls.verifyPeer({ leafDer: leafOf(ours) });
  if (refusedClient !== undefined) {
    return {
      kind: "refused",
      client: new EngineError("handshake", "received fatal alert: CertificateUnknown"),
      server: new EngineError("peer-identity", refusedClient),
    };
  }
  return { kind: "done", clientLeaf: leafOf(ours) };
}

/** One tunnel, seen from both ends. */
class MemoryTunnel {
  readonly client: ClientTunnel;
  readonly server: ServerTunnel;
  readonly #accepting: AcceptTunnelOptions;
  readonly #address: SocketAddress;
  readonly #streams = new Set<readonly [MemorySocket, MemorySocket]>();
  readonly #requests = new Set<MemoryRequest>();
  #draining = false;
  #gone = false;
  #clientClosed: TunnelClosed | undefined;

  constructor(dialled: DialTunnelOptions, accepting: AcceptTunnelOptions, address: SocketAddress) {
    this.#accepting = accepting;
    this.#address = address;
    const drain = (): void => {
      this.#draining = true;
      queueMicrotask(() => this.#endIfIdle());
    };
    const destroy = (): void => this.#end();
    this.server = { drain, destroy };
    const isUsable = (): boolean => !this.#draining && !this.#gone;
    this.client = {
      streamsMax: Math.min(dialled.settings.streamsMax, accepting.settings.streamsMax),
      get usable() {
        return isUsable();
      },
      open: (authority, headers) => this.#open(authority, headers),
      close: drain,
      destroy,
      onClosed: (callback) => {
        this.#clientClosed = callback;
      },
    };
  }

  #open(authority: string, headers: HeaderFields): Promise<TunnelAnswer> {
    if (this.#gone || this.#draining) {
      return Promise.reject(new EngineError("tunnel-closed", "the tunnel is closed"));
    }
    const { promise, resolve, reject } = Promise.withResolvers<TunnelAnswer>();
    const request = new MemoryRequest(authority, headers, {
      answered: (status, answer) => {
        this.#requests.delete(request);
        if (status !== 200) {
          queueMicrotask(() => resolve({ status, headers: answer, end: undefined }));
          queueMicrotask(() => this.#endIfIdle());
          return undefined;
        }
        const near = new MemorySocket(this.#address, this.#address, this.#address);
        const far = new MemorySocket(this.#address, this.#address, this.#address);
        join(near, far);
        const streams = [near, far] as const;
        this.#streams.add(streams);
        let openSides = 2;
        const sideEnded = (side: MemorySocket): void => {
          // A side that is closed as a whole takes the stream with it (RST_STREAM).
          if (--openSides > 0 && !side.closed) return;
          this.#streams.delete(streams);
          this.#endIfIdle();
        };
        near.onEnded = () => sideEnded(near);
        far.onEnded = () => sideEnded(far);
        queueMicrotask(() => resolve({ status: 200, headers: answer, end: near }));
        return far;
      },
      lost: () => reject(new EngineError("tunnel-closed", "the tunnel is closed")),
    });
    this.#requests.add(request);
    queueMicrotask(() => this.#accepting.requested(request));
    return promise;
  }

  #endIfIdle(): void {
    if (this.#draining && this.#streams.size + this.#requests.size === 0) this.#end();
  }

  #end(): void {
    if (this.#gone) return;
    this.#gone = true;
    for (const [near, far] of this.#streams) {
      near.receiveReset();
      far.receiveReset();
    }
    for (const request of this.#requests) request.abort();
    const lostStreams = this.#streams.size + this.#requests.size;
    queueMicrotask(() => {
      this.#accepting.closed(undefined);
      this.#clientClosed?.(undefined, lostStreams);
    });
  }
}

class MemoryRequest implements TunnelRequest {
  readonly method = "CONNECT";
  readonly authority: string;
  readonly headers: ReadonlyMap<string, string>;
  readonly #tunnel: {
    answered(status: number, headers: ReadonlyMap<string, string>): MemorySocket | undefined;
    lost(): void;
  };
  #answered = false;
  #aborted: (() => void) | undefined;

  constructor(
    authority: string,
    headers: HeaderFields,
    tunnel: {
      answered(status: number, headers: ReadonlyMap<string, string>): MemorySocket | undefined;
      lost(): void;
    },
  ) {
    this.authority = authority;
    this.headers = new Map(headers);
    this.#tunnel = tunnel;
  }

  accept(headers: HeaderFields): End {
    return this.#answer(200, headers) as MemorySocket;
  }

  refuse(status: number): void {
    this.#answer(status, []);
  }

  onAborted(callback: () => void): void {
    this.#aborted = callback;
  }

  abort(): void {
    if (this.#answered) return;
    this.#answered = true;
    this.#tunnel.lost();
    queueMicrotask(() => this.#aborted?.());
  }

  #answer(status: number, headers: HeaderFields): MemorySocket | undefined {
    if (this.#answered) throw new Error("a request is answered exactly once");
    this.#answered = true;
    return this.#tunnel.answered(status, new Map(headers));
  }
}

export class MemoryRelay implements Relay {
  bytesSent = 0;
  bytesReceived = 0;
  firstByteAt = 0;
  lastActivityAt = 0;
  readonly #downstream: MemorySocket;
  readonly #upstream: MemorySocket;
  readonly #clock: Clock;
  readonly #finished: (outcome: RelayOutcome) => void;
  #sent: HalfEnd | undefined;
  #received: HalfEnd | undefined;
  #isDone = false;

  constructor(
    downstream: MemorySocket,
    upstream: MemorySocket,
    clock: Clock,
    finished: (outcome: RelayOutcome) => void,
  ) {
    this.#downstream = downstream;
    this.#upstream = upstream;
    this.#clock = clock;
    this.#finished = finished;
    downstream.onReadable = () => this.#pumpDown();
    upstream.onReadable = () => this.#pumpUp();
    queueMicrotask(() => this.#pumpDown());
    queueMicrotask(() => this.#pumpUp());
  }

  stop(how: "close" | "reset"): void {
    this.#finish(undefined, how);
  }

  /** A write that goes wrong, as an engine would report it. */
  break(half: "sent" | "received", error: EngineError): void {
    if (half === "sent") this.#sent = "error";
    else this.#received = "error";
    this.#finish(error, "reset");
  }

  #pumpDown(): void {
    this.#pump(this.#downstream, this.#upstream, "sent");
  }

  #pumpUp(): void {
    this.#pump(this.#upstream, this.#downstream, "received");
  }

  #pump(from: MemorySocket, to: MemorySocket, half: "sent" | "received"): void {
    if (this.#isDone) return;
    const text = from.readEnd === "reset" ? "" : from.read();
    if (text !== "" && to.write(text)) {
      if (half === "sent") this.bytesSent += text.length;
      else this.bytesReceived += text.length;
      this.lastActivityAt = this.#clock.monotonic();
      this.firstByteAt ||= this.lastActivityAt;
    }
    if (from.readEnd === "reset") {
      this.#sent ??= "reset";
      this.#received ??= "reset";
      this.#finish(undefined, "reset");
    } else if (from.readEnd === "fin") {
      to.end();
      if (half === "sent") this.#sent ??= "fin";
      else this.#received ??= "fin";
      if (this.#sent !== undefined && this.#received !== undefined)
        this.#finish(undefined, "close");
    }
  }

  #finish(error: EngineError | undefined, how: "close" | "reset"): void {
    if (this.#isDone) return;
    this.#isDone = true;
    this.#downstream[how]();
    this.#upstream[how]();
    const outcome = {
      sent: this.#sent ?? "stopped",
      received: this.#received ?? "stopped",
      error,
    };
    queueMicrotask(() => this.#finished(outcome));
  }
}

/** A certificate that says who it is and nothing else: unsigned, without a key. */
export function memoryCertificate(identity: Identity, root = "root"): WorkloadCertificate {
  const uri = tlv(0x86, Buffer.from(formatSpiffeId(identity)));
  const extension = tlv(
    0x30,
    tlv(0x06, Buffer.from([0x55, 0x1d, 0x11])),
    tlv(0x04, tlv(0x30, uri)),
  );
  const leaf = tlv(0x30, tlv(0x30, tlv(0xa3, tlv(0x30, extension))));
  return {
    identity,
    chainPem: [leaf.toString("base64")],
    privateKeyPem: "",
    rootsPem: [root],
    notBeforeAt: 0,
    notAfterAt: Number.MAX_SAFE_INTEGER,
  };
}

/** A DER element of less than 64 KiB. */
function tlv(tag: number, ...contents: Buffer[]): Buffer {
  const body = Buffer.concat(contents);
  const { length } = body;
  const head = length < 128 ? [tag, length] : [tag, 0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from(head), body]);
}

function leafOf(certificate: WorkloadCertificate): Uint8Array {
  return Buffer.from(certificate.chainPem[0] ?? "", "base64");
}

function chainOf({ chainPem, rootsPem }: WorkloadCertificate): Uint8Array {
  return Buffer.concat([...chainPem, ...rootsPem].map((text) => Buffer.from(text, "base64")));
}

function trusts(one: WorkloadCertificate, other: WorkloadCertificate): boolean {
  return one.rootsPem.join() === other.rootsPem.join();
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
