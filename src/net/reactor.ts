/**
 * The typed face of the reactor in native/: sockets and TLS in batches.
 *
 * One reactor per data thread, on that thread's event loop. It gathers what happened into
 * {@link Reactor.events}, calls `turn` once, and performs what `turn` left in
 * {@link Reactor.operations}. All bytes lie in {@link Reactor.arena}. Nothing here decides anything.
 *
 * Every event and operation is four numbers: kind, connection id, a, b. An id dies with `CLOSE`,
 * `RESET` or `ALERT`, never by itself: also a connection that failed must be closed. Operations on
 * dead ids are ignored and counted.
 */
import { createRequire } from "node:module";

/** The first number of an event. */
export const EVENT = {
  /**
   * On a listener. a: id of the new connection, which is not read until it has credit; b: offset in
   * the arena of two addresses of {@link ADDRESS_BYTES}, the peer's and the original destination.
   */
  ACCEPT: 1,
  /**
   * Connected; for a tunnel: the handshake is done and the peer's chain is trusted. A connection
   * that {@link Reactor.startTls} was called on before it was connected opens only once.
   */
  OPEN: 2,
  /** a: offset in the arena, b: length. */
  DATA: 3,
  /** FIN or close_notify; before OPEN of a tunnel: the peer left during the handshake. */
  EOF: 4,
  /**
   * The last event of a connection: nothing more is read or written; close it. a: an errno, or one of
   * {@link TLS_FAILURE} with its number in b. On a listener: accepting stops until RESUME.
   */
  ERROR: 5,
  /** The connection's own queue went empty: what `pending` told is with the kernel. */
  DRAIN: 6,
} as const;

/** The first number of an operation. */
export const OPERATION = {
  /** a: offset in the arena, b: length. The arena may change as soon as it is performed. */
  WRITE: 1,
  /** No more writes: FIN, or close_notify and FIN, behind what is queued. Reading goes on. */
  END: 2,
  /** Closes now and drops what is queued. Unread bytes of a plain connection make it an RST. */
  CLOSE: 3,
  /** Closes with RST. */
  RESET: 4,
  /** Reads again after raising `credit` from 0, which is not noticed by itself; accepts again. */
  RESUME: 5,
  /** a: number of a TLS alert (RFC 8446 section 6), sent as fatal before the connection is closed. */
  ALERT: 6,
  /**
   * As RESET when the peer has acknowledged all that was written, else as CLOSE: then the kernel
   * still delivers it and answers RST to whatever comes.
   */
  ABANDON: 7,
} as const;

/** Negative values of `a` in an ERROR event. */
export const TLS_FAILURE = {
  /** What the peer sent is no TLS that we accept; b: OpenSSL's reason number. */
  PROTOCOL: -1,
  /** The peer refused us; b: the number of its alert. */
  ALERT: -2,
  /** The peer's chain is not trusted; b: OpenSSL's X509_V_ERR number. */
  UNTRUSTED: -3,
} as const;

/** Bytes in front of each plain read that are free for a frame header. */
export const HEADROOM_BYTES = 16;

/** Length of the IP (4 or 16, 0 for no address), a free byte, the port, the IP; network order. */
export const ADDRESS_BYTES = 20;

/** Limits and sizes; all memory below is taken once, the pages when first touched. */
export interface ReactorOptions {
  /**
   * Where reads go, at the start of the arena. At least `plainReadBytes` and `cipherReadBytes`, each
   * with 32 KiB to spare.
   */
  readonly arenaBytes: number;
  /** Behind the reads: never touched by the reactor, free for what a turn composes to write. */
  readonly scratchBytes: number;
  /** At least 16. */
  readonly eventsMax: number;
  readonly operationsMax: number;
  /** Listeners count; at most 65,535. Beyond it accepting stops with ERROR `EMFILE`. */
  readonly connectionsMax: number;
  /** Most bytes of one plain connection in a turn. */
  readonly plainReadBytes: number;
  /** Most ciphertext of one tunnel in a turn; at least 1 KiB. */
  readonly cipherReadBytes: number;
  /** Most ciphertext of one send, in whole records; what is there at the end of a batch is sent too. */
  readonly cipherSendBytes: number;
  /** Most connections that one listener gives in a turn. */
  readonly acceptsPerTurn: number;
  /** What one connection may hold beyond the kernel's buffer; more is ERROR `ENOBUFS`. */
  readonly queueBytesMax: number;
  /**
   * Bytes that a tunnel encrypts with one key before it moves to the next (RFC 8446 section 4.6.3);
   * at most 1 TiB.
   */
  readonly rekeyBytes: number;
}

/** How tunnels prove who they are and whom they trust; for both roles. */
export interface ReactorTlsOptions {
  /** The leaf, then the intermediates. */
  readonly chainPem: string;
  readonly keyPem: string;
  /** Any number of roots; each is trusted also when somebody else signed it. */
  readonly rootsPem: string;
  /** Also allow TLS 1.2. */
  readonly tls12: boolean;
  /**
   * In OpenSSL's notation, `X25519:P-256:?X25519MLKEM768`. A name that it does not know is an error;
   * optional ones, marked by `?` and last in the list, are left out.
   */
  readonly groups: string;
}

/** A certificate with its key, and whom it trusts; lives as long as somebody holds it. */
export type TlsContext = object;

/**
 * Methods throw a TypeError for arguments of the wrong kind, ids that are dead and a reactor that is
 * closed; errors of the system have Node's shape (`code`, `errno`, `syscall`).
 */
export interface Reactor {
  /** Reads, then scratch. What `turn` was told of is valid until it returns. */
  readonly arena: Uint8Array;
  readonly events: Int32Array;
  readonly operations: Int32Array;
  /**
   * By slot, the low 16 bits of an id: bytes written that the kernel has not taken. Slot 0, which is
   * no connection's, counts the operations that were ignored because their id was dead, their range
   * not in the arena or their moment wrong.
   */
  readonly pending: Int32Array;
  /**
   * By slot: how many bytes the next read of a plain connection may take; 0 stops reading. Set by
   * JavaScript only, 0 for a new connection. Each read is told before the next one begins. Slot 0
   * tells what a batch may read, about: those that are ready share it, each read may take at least
   * 32 KiB and at most `plainReadBytes` or `cipherReadBytes`. At first `arenaBytes`.
   */
  readonly credit: Int32Array;
  /**
   * Takes a listening socket. Connections inherit its options, TCP_NODELAY and keep-alive too.
   *
   * @param redirected whether to ask where connections were going; left out: no.
   */
  listen(fd: number, redirected?: boolean): number;
  /**
   * Takes an unconnected socket and connects it: OPEN or ERROR follows.
   *
   * @param ip of the socket's family, or ERROR `EAFNOSUPPORT` follows.
   */
  connect(fd: number, ip: string, port: number): number;
  /** Makes two connections to each other, which are open. @throws an error of the system. */
  pair(): readonly [number, number];
  /** For questions to the kernel; the descriptor stays the reactor's. */
  fdOf(id: number): number;
  /** Makes a tunnel of a plain connection that nothing was written to. */
  startTls(id: number, context: TlsContext, server: boolean): void;
  /** @throws Error naming the option and what OpenSSL says about it. */
  makeContext(options: ReactorTlsOptions): TlsContext;
  /** What the peer's leaf was found to chain to: leaf to root, DER one after the other; empty before OPEN. */
  peerChain(id: number): Uint8Array;
  /**
   * What ERROR was about: `ECONNRESET`, `tlsv1 alert unknown ca`, `wrong version number`,
   * `certificate verify failed: certificate has expired`. Empty before.
   */
  errorText(id: number): string;
  /** Performs operations now: when the list is full, or outside of a turn. */
  flush(operationCount: number): void;
  /** Closes every connection and stops keeping the thread running. Idempotent. */
  close(): void;
}

const addon = createRequire(import.meta.url)("../../native/build/ztunnel.node") as {
  createReactor: typeof createReactor;
};

/**
 * Makes a reactor on this thread's event loop.
 *
 * @param turn is told how many events there are and answers how many operations it left. An error
 *   that escapes it is fatal to the thread like any uncaught one; its operations are lost.
 * @throws Error when this Node has no OpenSSL 3.
 */
export function createReactor(
  options: ReactorOptions,
  turn: (eventCount: number) => number,
): Reactor {
  return addon.createReactor(options, turn);
}
