/**
 * The engine port: what the data path asks of whatever moves the bytes.
 *
 * Proxies decide; an engine listens, accepts, connects, carries tunnels and relays two ends. Nothing
 * above this port knows a socket, a stream or a buffer. The daemon's engine is a native batch loop
 * whose ends are numbers in a table ({@link file://./batch-engine.ts}); tests have two more, on
 * Node's own streams and in memory, and one conformance suite for all of them.
 *
 * All callbacks run on the engine's thread, never from inside the call that registered them.
 */
import type { Http2Settings } from "../http2/http2-settings.ts";
import type { IpAddress } from "../mesh/ip-address.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";
import type { WorkloadCertificate } from "../mesh/workload-certificate.ts";
import type { EngineError } from "./engine-error.ts";

/** The network namespace in which sockets are made; `undefined` is the process's own. */
export interface NetnsFd {
  /** An open descriptor of the namespace, owned by someone else and open as long as it is used. */
  readonly fd: number;
}

/** TCP keep-alive; `undefined` user time-out leaves the kernel's. All in milliseconds. */
export interface KeepAliveOptions {
  readonly idleMs: number;
  readonly intervalMs: number;
  readonly probes: number;
  readonly userTimeoutMs: number | undefined;
}

export interface ListenOptions {
  readonly netns: NetnsFd | undefined;
  /** Host `::` listens on both families. */
  readonly address: SocketAddress;
  /** SO_MARK, inherited by accepted sockets. */
  readonly mark: number | undefined;
  readonly reusePort: boolean;
  /**
   * IP_TRANSPARENT: `required` fails the listen when it can't be set, `try` reports the outcome in
   * {@link Listener.transparent}, `off` does not ask.
   */
  readonly transparent: "required" | "try" | "off";
  /** Length of the kernel's accept queue. */
  readonly backlog: number;
  /** For accepted sockets. */
  readonly keepAlive: KeepAliveOptions | undefined;
  /** Look up the destination before redirection (SO_ORIGINAL_DST) for each accepted socket. */
  readonly originalDestination: boolean;
}

export interface Listener {
  readonly address: SocketAddress;
  readonly transparent: boolean;
  /** Begins to accept; until then connections wait in the kernel's queue. Call once. */
  start(accepted: (end: SocketEnd) => void, failed: (error: EngineError) => void): void;
  /** Closes the listening socket before it returns. Idempotent. */
  close(): void;
}

export interface ConnectOptions {
  readonly netns: NetnsFd | undefined;
  readonly remote: SocketAddress;
  /** Spoofed source: IP_TRANSPARENT and a late-bound port. `undefined`: the kernel's choice. */
  readonly source: IpAddress | undefined;
  readonly mark: number | undefined;
  readonly timeoutMs: number;
  readonly keepAlive: KeepAliveOptions | undefined;
}

/** One side of a connection, held by the engine. Owned by whoever received it until relayed. */
export interface End {
  /** Closes; unread bytes make the kernel answer RST, else the peer sees FIN. Idempotent. */
  close(): void;
  /** TCP: RST. Tunnel stream: RST_STREAM(CONNECT_ERROR). Idempotent. */
  reset(): void;
}

export interface SocketEnd extends End {
  /** The address dialled by the peer, after redirection. May be asked for while the end is open. */
  readonly local: SocketAddress;
  readonly peer: SocketAddress;
  /** As asked for in {@link ListenOptions}; when not, or the kernel did not know it, as `local`. */
  readonly originalDestination: SocketAddress;
  /**
   * Waits for what the peer says before it is relayed: a handshake. What follows stays unread, for the
   * relay. One call at a time.
   *
   * @param byteCount few.
   * @returns exactly so many.
   * @throws EngineError `disconnected` when the end was closed or the peer stopped before; `system`.
   */
  readFirst(byteCount: number): Promise<Uint8Array>;
  /**
   * Says something before the end is relayed, which no relay counts.
   *
   * @param bytes few: the kernel's buffer takes them all.
   */
  writeFirst(bytes: Uint8Array): void;
}

/** How the reading of one side ended. */
export type HalfEnd =
  /** FIN or END_STREAM, passed on after the last byte was written. */
  | "fin"
  /** RST, RST_STREAM or a vanished tunnel, passed on as a reset of both ends. */
  | "reset"
  /** The relay was stopped, the other half failed first, or nothing moved after it had ended. */
  | "stopped"
  /** The bytes of this half could not be written; see {@link RelayOutcome.error}. */
  | "error";

export interface RelayOutcome {
  /** Downstream → upstream. */
  readonly sent: HalfEnd;
  /** Upstream → downstream. */
  readonly received: HalfEnd;
  /** What went wrong besides a peer that simply left; the sending half's error wins. */
  readonly error: EngineError | undefined;
}

/** Two ends joined. The counters may be read at any time, also after the end. */
export interface Relay {
  /** Bytes written upstream. */
  readonly bytesSent: number;
  /** Bytes written downstream. */
  readonly bytesReceived: number;
  /** Monotonic milliseconds of the first byte in either direction; 0 before it. */
  readonly firstByteAt: number;
  /** Monotonic milliseconds of the last byte in either direction; 0 before the first. */
  readonly lastActivityAt: number;
  /** Ends both sides now: `close` as FIN where nothing is unread, `reset` as RST. Idempotent. */
  stop(how: "close" | "reset"): void;
}

/** Numbers of one side of a tunnel. @see spec data-path 3.2 and 4.2 */
export interface TunnelSettings extends Http2Settings {
  readonly pingIntervalMs: number;
  readonly pingTimeoutMs: number;
  /** From TCP connect to the end of the TLS handshake. */
  readonly handshakeTimeoutMs: number;
}

/** What the peer proved in its handshake. */
export interface PeerChain {
  /** DER of the leaf certificate. */
  readonly leafDer: Uint8Array;
}

/** Judges a peer whose chain is already trusted. @returns why it is refused, or `undefined`. */
export type VerifyPeer = (chain: PeerChain) => string | undefined;

export interface TlsOptions {
  /** Leaf, key and roots. Engines keep what they build from it as long as the object lives. */
  readonly certificate: WorkloadCertificate;
  readonly verifyPeer: VerifyPeer;
  /**
   * Asked before `verifyPeer` whether somebody in the chain is revoked.
   *
   * @param chainDer from the peer's leaf to the root that is trusted, DER one after the other.
   */
  readonly isRevoked?: (chainDer: Uint8Array) => boolean;
  /** Also allow TLS 1.2 (`TLS12_ENABLED`). */
  readonly tls12: boolean;
  /** Only X25519MLKEM768 (`COMPLIANCE_POLICY=pqc`). */
  readonly postQuantumOnly: boolean;
}

/** Header fields of a CONNECT beside its pseudo-headers, lower-case names, in wire order. */
export type HeaderFields = readonly (readonly [name: string, value: string])[];

/** Of an outgoing one, however it is carried. */
export interface TunnelOptions {
  readonly tls: TlsOptions;
  readonly settings: TunnelSettings;
}

export interface DialTunnelOptions extends TunnelOptions {
  readonly connect: ConnectOptions;
}

/** An outgoing HBONE connection that may carry many streams. */
export interface ClientTunnel {
  /** Streams at a time: as many as the settings say, fewer where the peer allows fewer. */
  readonly streamsMax: number;
  /** False once the connection failed, was closed or the peer sent GOAWAY. */
  readonly usable: boolean;
  /**
   * Sends a CONNECT and waits for its answer.
   *
   * @returns the end with status 200, or the status alone.
   * @throws EngineError `stream-reset` or `tunnel-closed` when no answer comes.
   */
  open(authority: string, headers: HeaderFields): Promise<TunnelAnswer>;
  /** No new streams; GOAWAY(NO_ERROR) and close when the last stream has ended. Idempotent. */
  close(): void;
  /** Ends everything at once. Idempotent. */
  destroy(): void;
  /** Called once, when the connection is gone. */
  onClosed(callback: TunnelClosed): void;
}

/**
 * @param error `undefined` after an orderly end.
 * @param lostStreams how many had not ended when the connection broke; what they carried is cut short.
 */
export type TunnelClosed = (error: EngineError | undefined, lostStreams: number) => void;

export type TunnelAnswer =
  | { readonly status: 200; readonly headers: ReadonlyMap<string, string>; readonly end: End }
  | {
      readonly status: number;
      readonly headers: ReadonlyMap<string, string>;
      readonly end: undefined;
    };

/** One CONNECT from a peer. Answer exactly once. */
export interface TunnelRequest {
  readonly method: string;
  readonly authority: string | undefined;
  /** Lower-case names; repeated fields joined with `,`. */
  readonly headers: ReadonlyMap<string, string>;
  /** Sends 200 and gives the stream as an end. */
  accept(headers: HeaderFields): End;
  /** Sends the status with END_STREAM, then RST_STREAM(NO_ERROR). */
  refuse(status: number): void;
  /** Called at most once, when the peer gives up before the answer. */
  onAborted(callback: () => void): void;
}

export interface AcceptTunnelOptions {
  readonly tls: TlsOptions;
  readonly settings: TunnelSettings;
  /** The peer is accepted and its HTTP/2 SETTINGS have come; before any request. */
  readonly opened: (peer: PeerChain) => void;
  readonly requested: (request: TunnelRequest) => void;
  /** A request that breaks the rules of HTTP/2 was reset; why, in words. */
  readonly malformed?: (reason: string) => void;
  /**
   * Once, when the connection is gone. `handshake` and `peer-identity` errors mean that `opened` was
   * never called, also when the client left after a good handshake because it refuses our identity.
   */
  readonly closed: (error: EngineError | undefined) => void;
}

/** An incoming HBONE connection. */
export interface ServerTunnel {
  /** GOAWAY; running streams go on, the connection ends with the last of them. Idempotent. */
  drain(): void;
  /** Ends everything at once. Idempotent. */
  destroy(): void;
}

export interface Engine {
  /** @throws EngineError with the errno's name when the socket can't be made or bound. */
  listen(options: ListenOptions): Listener;
  /** @throws EngineError `connect-timeout` or the errno's name. */
  connect(options: ConnectOptions): Promise<SocketEnd>;
  /** Takes both ends; they are closed when `finished` is called, exactly once. */
  relay(downstream: End, upstream: End, finished: (outcome: RelayOutcome) => void): Relay;
  /** @throws EngineError of the connect, the handshake or the peer's identity. */
  dialTunnel(options: DialTunnelOptions): Promise<ClientTunnel>;
  /**
   * Opens a tunnel inside of a stream of another one, to whoever is behind that one's peer. Takes the
   * stream's end.
   *
   * @param released called once, when the stream has ended.
   * @throws EngineError of the handshake or the peer's identity.
   */
  nestTunnel(outer: End, options: TunnelOptions, released: () => void): Promise<ClientTunnel>;
  /** Takes the end. */
  acceptTunnel(end: SocketEnd, options: AcceptTunnelOptions): ServerTunnel;
  /** Ends whatever is left at once. Idempotent. */
  close(): void;
}
