/**
 * What both ends of a tunnel share on the reactor: the handshake, HTTP/2 over it, its windows and its
 * end.
 */
import { ErrorCode } from "../http2/error-code.ts";
import { Http2Connection } from "../http2/http2-connection.ts";
import type { Http2Failure, Http2Listener } from "../http2/http2-listener.ts";
import type { Http2Stream } from "../http2/http2-stream.ts";
import type { Http2Request } from "../http2/message-fields.ts";
import { OPERATION } from "../net/reactor.ts";
import { failureOf } from "../net/reactor-failure.ts";
import type { Clock, Timer } from "../runtime/clock.ts";
import { invariant } from "../runtime/invariant.ts";
import type { BatchContexts } from "./batch-contexts.ts";
import { type BatchLoop, slotOf, type Watcher } from "./batch-loop.ts";
import { BatchStream, type StreamTunnel } from "./batch-stream.ts";
import type { TlsOptions, TunnelSettings } from "./engine.ts";
import { EngineError } from "./engine-error.ts";
import { alertFor, CERTIFICATE_REVOKED, CERTIFICATE_UNKNOWN } from "./handshake-alert.ts";
import { handshakeTimeout, leftInHandshake, revokedPeer, tlsFailure } from "./handshake-error.ts";
import type { OpenThings } from "./open-things.ts";
import { PingWatch } from "./ping-watch.ts";
import { resetFailure, streamReset } from "./stream-reset.ts";
import { TunnelStory } from "./tunnel-story.ts";

/** A peer that takes nothing any more can't hold a tunnel open that this process has ended. */
const GOODBYE_MS_MAX = 1000;

/** What streams wrote so shortly before the end may still be on its way to a slow peer, which has as long again. */
const LAST_BYTES_MS = 30_000;

/** Bytes waiting for the kernel above which nothing more is read towards the tunnel. */
const QUEUED_BYTES_MAX = 512 * 1024;

/** One full TLS record: what is left of a window is not read in smaller pieces. */
const SHARE_BYTES_MIN = 16 * 1024;

export interface BatchTunnelDeps {
  readonly clock: Clock;
  readonly loop: BatchLoop;
  readonly contexts: BatchContexts;
  readonly open: OpenThings;
  /** Told of what should never be thrown. */
  readonly unexpected: (error: unknown) => void;
}

export interface BatchTunnelOptions {
  readonly role: "client" | "server";
  readonly tls: TlsOptions;
  readonly settings: TunnelSettings;
}

/** What becomes of a tunnel. */
export interface BatchTunnelListener {
  /** The handshake is done, the peer accepted, HTTP/2 has begun. */
  readonly secured: (leafDer: Uint8Array) => void;
  /** The peer has begun HTTP/2, too. */
  readonly settled: () => void;
  /** Servers only. */
  readonly requested: (end: BatchStream, request: Http2Request) => void;
  /** Servers only. */
  readonly malformed: (reason: string) => void;
  /** Once: the connection is gone; `undefined` after an orderly end. */
  readonly gone: (error: EngineError | undefined) => void;
}

export class BatchTunnel implements Watcher, StreamTunnel {
  readonly id: number;
  readonly loop: BatchLoop;
  readonly #deps: BatchTunnelDeps;
  readonly #options: BatchTunnelOptions;
  readonly #listener: BatchTunnelListener;
  readonly #handshakeTimer: Timer;
  /** For the engine, which does not wait for the peer. */
  readonly #entry: { destroy(): void } = {
    destroy: () => {
      this.destroy();
      this.#leave(this.#story.outcome());
    },
  };
  readonly #story: TunnelStory;
  /** Who wrote in this turn. */
  readonly #writers: BatchStream[] = [];
  #connection: Http2Connection<BatchStream> | undefined;
  #pings: PingWatch | undefined;
  #goodbyeTimer: Timer | undefined;
  #phase: "handshake" | "running" | "goodbye" | "gone" = "handshake";
  #lostStreams = 0;
  /** When streams last wrote, milliseconds as {@link BatchLoop.now}. */
  #wroteAt = Number.NEGATIVE_INFINITY;
  #isBlocked = false;
  #hasPeerEnded = false;

  /**
   * Takes a connection of the reactor and begins the handshake.
   *
   * @throws Error of OpenSSL when our certificate can't be used.
   */
  constructor(
    deps: BatchTunnelDeps,
    id: number,
    options: BatchTunnelOptions,
    listener: BatchTunnelListener,
  ) {
    this.id = id;
    this.loop = deps.loop;
    this.#deps = deps;
    this.#options = options;
    this.#listener = listener;
    this.#story = new TunnelStory(options.role);
    const context = deps.contexts.context(options.tls);
    deps.loop.reactor.startTls(id, context, options.role === "server");
    deps.loop.watch(this);
    deps.open.add(this.#entry);
    this.#handshakeTimer = deps.clock.after(options.settings.handshakeTimeoutMs, () => {
      this.#leave(handshakeTimeout());
    });
  }

  get connection(): Http2Connection<BatchStream> {
    invariant(this.#connection !== undefined, "a tunnel is used after its handshake");
    return this.#connection;
  }

  get isBlocked(): boolean {
    return this.#isBlocked;
  }

  /** True as long as new streams may be asked for. */
  get isUsable(): boolean {
    return this.#phase === "running" && !this.#story.isClosing && this.connection.usable;
  }

  /** How many streams had not ended when the tunnel broke. */
  get lostStreams(): number {
    return this.#lostStreams;
  }

  /** Why no stream can be had of a tunnel that is gone or going. */
  closedError(): EngineError {
    return this.#story.closedError();
  }

  /**
   * No new streams; GOAWAY, and the end when the last stream has ended. A server finishes a handshake
   * that is under way, and serves what the peer asks before it reads of this. Idempotent.
   */
  close(): void {
    const { role } = this.#options;
    if (this.#phase === "handshake" && role === "client") this.destroy();
    if ((this.#phase !== "handshake" && this.#phase !== "running") || this.#story.isClosing) return;
    this.#story.closing();
    if (role === "client") this.connection.close();
    else if (this.#phase === "running") this.connection.drain();
  }

  /** Ends all streams as stopped. Idempotent. */
  destroy(): void {
    if (this.#phase !== "handshake" && this.#phase !== "running") return;
    this.#story.destroyed();
    if (this.#phase === "handshake") {
      this.#leave(undefined);
      return;
    }
    this.connection.terminate(ErrorCode.noError);
    this.#sayGoodbye(GOODBYE_MS_MAX);
    // Whoever also ends the relays, in whatever way, comes first.
    this.loop.later(() => this.#loseStreams());
  }

  awaitFlush(writer: BatchStream): void {
    this.#writers.push(writer);
    if (this.#writers.length === 1) this.loop.flushedSoon(this);
  }

  opened(): void {
    const { tls } = this.#options;
    const chainDer = this.loop.reactor.peerChain(this.id);
    if (tls.isRevoked?.(chainDer)) {
      this.#refuse(CERTIFICATE_REVOKED, revokedPeer(this.#options.role));
      return;
    }
    const leafDer = firstDer(chainDer);
    const refusal = tls.verifyPeer({ leafDer });
    if (refusal !== undefined) {
      this.#refuse(CERTIFICATE_UNKNOWN, new EngineError("peer-identity", refusal));
      return;
    }
    const { role, settings } = this.#options;
    if (role === "client") this.#handshakeTimer.cancel();
    this.#phase = "running";
    this.#connection = new Http2Connection<BatchStream>(
      {
        arena: this.loop.arena,
        output: { reserve: (length) => this.loop.reserve(this.id, length) },
        listener: this.#http2Listener(),
      },
      { role, settings },
    );
    this.#connection.start();
    if (this.#story.isClosing) this.#connection.drain();
    this.#pings = new PingWatch(
      {
        clock: this.#deps.clock,
        ping: () => this.connection.ping(),
        unanswered: () => this.#unanswered(),
      },
      settings,
    );
    this.#listener.secured(leafDer);
  }

  read(offset: number, length: number): void {
    if (this.#phase === "running") this.connection.receive(offset, length, this.loop.now);
  }

  ended(): void {
    this.#hasPeerEnded = true;
    if (this.#phase === "handshake") this.#leave(leftInHandshake(this.#options.role));
    else if (this.#phase === "running") {
      this.#story.left(this.connection.streamCount > 0);
      this.#loseStreams();
    }
    if (this.#phase === "goodbye" && this.loop.pending[slotOf(this.id)] !== 0) return;
    this.#leave(this.#story.outcome());
  }

  failed(errno: number, tlsNumber: number): void {
    const failure = failureOf(errno, tlsNumber);
    if (this.#phase === "handshake") {
      const error = tlsFailure(failure, this.#options.role);
      const alert = alertFor(failure);
      if (alert === undefined) this.#leave(error);
      else this.#refuse(alert, error);
      return;
    }
    if (this.#phase === "running") {
      this.#story.failed(failure);
      this.#loseStreams();
    }
    this.#leave(this.#story.outcome());
  }

  drained(): void {
    if (this.#phase === "goodbye" && this.#hasPeerEnded) this.#leave(this.#story.outcome());
    if (this.#phase !== "running" || !this.#isBlocked) return;
    this.#isBlocked = false;
    this.#reopenStreams();
  }

  flushed(): void {
    this.#wroteAt = this.loop.now;
    if (this.#phase === "running" && !this.#isBlocked) {
      this.#shareWindow();
      this.#isBlocked = (this.loop.pending[slotOf(this.id)] as number) > QUEUED_BYTES_MAX;
      if (this.#isBlocked) {
        for (const stream of this.connection.streams()) stream.owner?.blocked();
      }
    }
    this.#writers.length = 0;
  }

  accepted(): void {}

  abandon(error: unknown): void {
    this.#story.broke(new EngineError("protocol", String(error), { cause: error }));
    if (this.#phase === "running") this.#loseStreams();
    this.#leave(this.closedError());
  }

  /** Each writer could use up what is left of the connection's window; what more is read is copied. */
  #shareWindow(): void {
    const room = Math.max(0, this.connection.sendWindowBytes);
    const writerCount = this.#writers.length;
    if (writerCount === 1 || room >= this.loop.batchBytesMax) return;
    const share = room === 0 ? 0 : Math.max(SHARE_BYTES_MIN, Math.floor(room / writerCount));
    for (const writer of this.#writers) writer.limited(share);
  }

  /** What happens in HTTP/2. */
  #http2Listener(): Http2Listener<BatchStream> {
    return {
      requested: (stream, request) => this.#onRequested(stream, request),
      malformed: (reason) => this.#listener.malformed(reason),
      responded: (stream, status, headers) => stream.owner?.answered?.(status, headers),
      data: (stream, offset, length) => stream.owner?.read(offset, length),
      ended: (stream) => stream.owner?.ended(),
      reset: (stream, code) => stream.owner?.lost(resetFailure(code), streamReset(code)),
      windowOpened: (stream) => stream.owner?.reopened(),
      windowsOpened: () => this.#reopenStreams(),
      settled: () => this.#onSettled(),
      ponged: () => this.#pings?.answered(),
      goneAway: (_lastStreamId, code) => {
        if (code === ErrorCode.noError) this.#story.saidGoodbye();
      },
      finished: (failure) => this.#onFinished(failure),
    };
  }

  #onRequested(stream: Http2Stream<BatchStream>, request: Http2Request): void {
    const end = new BatchStream(this);
    end.attach(stream);
    stream.owner = end;
    try {
      this.#listener.requested(end, request);
    } catch (error) {
      this.connection.reset(stream, ErrorCode.internalError);
      this.#deps.unexpected(error);
    }
  }

  #reopenStreams(): void {
    for (const stream of this.connection.streams()) stream.owner?.reopened();
  }

  #onSettled(): void {
    this.#story.settled();
    this.#handshakeTimer.cancel();
    this.#listener.settled();
  }

  #onFinished(failure: Http2Failure | undefined): void {
    if (failure !== undefined) this.#story.broke(new EngineError("protocol", failure.message));
    this.#loseStreams();
    const isFresh = failure === undefined && this.loop.now - this.#wroteAt < LAST_BYTES_MS;
    this.#sayGoodbye(isFresh ? LAST_BYTES_MS : GOODBYE_MS_MAX);
  }

  /** Waits that long for the peer to leave, too, so that it reads our last words. */
  #sayGoodbye(waitMs: number): void {
    this.#phase = "goodbye";
    this.#handshakeTimer.cancel();
    this.#pings?.stop();
    this.loop.push(OPERATION.END, this.id, 0, 0);
    this.#goodbyeTimer = this.#deps.clock.after(waitMs, () => {
      this.#leave(this.#story.outcome());
    });
  }

  #loseStreams(): void {
    const failure = this.#story.streamFailure();
    const why = this.closedError();
    const streams = [...this.connection.streams()];
    this.#lostStreams += streams.length;
    for (const stream of streams) stream.owner?.lost(failure, why);
  }

  /** Leaves with a word of why. */
  #refuse(alert: number, error: EngineError): void {
    this.loop.close(this, OPERATION.ALERT, alert);
    this.#done(error);
  }

  #leave(error: EngineError | undefined): void {
    if (this.#phase === "gone") return;
    this.loop.close(this, OPERATION.CLOSE);
    this.#done(error);
  }

  #done(error: EngineError | undefined): void {
    this.#phase = "gone";
    this.#handshakeTimer.cancel();
    this.#pings?.stop();
    this.#goodbyeTimer?.cancel();
    this.#deps.open.delete(this.#entry);
    this.loop.later(() => this.#listener.gone(error));
  }

  #unanswered(): void {
    this.#story.broke(new EngineError("ping-timeout", "HBONE ping timeout"));
    this.connection.terminate(ErrorCode.noError);
    this.#loseStreams();
    this.#sayGoodbye(GOODBYE_MS_MAX);
  }
}

/** The first of the certificates that follow each other: X.690, tag, length, content. */
function firstDer(chain: Uint8Array): Uint8Array {
  const first = chain[1] ?? 0;
  if (first < 0x80) return chain.subarray(0, 2 + first);
  const start = 2 + (first & 0x7f);
  const length = chain.subarray(2, start).reduce((sum, byte) => sum * 256 + byte, 0);
  return chain.subarray(0, start + length);
}
