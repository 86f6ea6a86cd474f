/** An outgoing HBONE connection: TCP, TLS, then CONNECT streams over Node's HTTP/2. */
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as connectHttp2,
  constants,
} from "node:http2";
import type { Duplex } from "node:stream";
import { connect as connectTls, type DetailedPeerCertificate, type TLSSocket } from "node:tls";
import type {
  ClientTunnel,
  HeaderFields,
  TlsOptions,
  TunnelAnswer,
  TunnelClosed,
  TunnelOptions,
  TunnelSettings,
} from "../../../src/engine/engine.ts";
import { EngineError, systemError } from "../../../src/engine/engine-error.ts";
import {
  handshakeTimeout,
  leftInHandshake,
  revokedPeer,
} from "../../../src/engine/handshake-error.ts";
import type { OpenThings } from "../../../src/engine/open-things.ts";
import { streamReset } from "../../../src/engine/stream-reset.ts";
import type { Clock } from "../../../src/runtime/clock.ts";
import type { BufferPool } from "./buffer-pool.ts";
import { handshakeError } from "./handshake-error.ts";
import { fromFlatList, toFlatList } from "./header-fields.ts";
import { NodeStreamEnd } from "./node-stream-end.ts";
import { peerChain } from "./peer-chain.ts";
import type { SecureContexts } from "./secure-contexts.ts";
import { sessionOptions, TunnelSession } from "./tunnel-session.ts";

/** Node wants a URL; nothing of it goes over the wire. */
const UNUSED_URL = "https://hbone.invalid";

export interface ClientTunnelDeps {
  readonly clock: Clock;
  readonly pool: BufferPool;
  readonly contexts: SecureContexts;
  readonly open: OpenThings;
}

/**
 * Speaks TLS as a client over a connected socket, which it takes.
 *
 * @throws EngineError `handshake` or `peer-identity`.
 */
export function secureClient(
  deps: ClientTunnelDeps,
  socket: Duplex,
  options: TunnelOptions,
): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    let refusal: EngineError | undefined;
    let secured: TLSSocket;
    try {
      secured = connectTls({
        socket,
        secureContext: deps.contexts.client(options.tls),
        ALPNProtocols: ["h2"],
        servername: "",
        // Runs after the chain was verified and before the server learns that we are done.
        checkServerIdentity: (_hostname, certificate) => {
          refusal = judge(options.tls, certificate as DetailedPeerCertificate);
          return refusal;
        },
      });
    } catch (error) {
      socket.destroy();
      return reject(systemError(error));
    }
    deps.open.add(secured);
    const timer = deps.clock.after(options.settings.handshakeTimeoutMs, () => {
      secured.destroy(handshakeTimeout());
    });
    // Of a socket Node notices by itself, of a stream it does not.
    for (const event of ["end", "close"]) {
      socket.once(event, () => secured.destroy(leftInHandshake("client")));
    }
    // Stays when connected, for errors before the HTTP/2 session takes over.
    secured.on("error", (error) => {
      reject(error instanceof EngineError ? error : handshakeError(error, "client"));
    });
    secured.once("secureConnect", () => {
      timer.cancel();
      deps.open.delete(secured);
      resolve(secured);
    });
    secured.once("close", () => {
      timer.cancel();
      deps.open.delete(secured);
      reject(refusal ?? new EngineError("handshake", "the engine was closed"));
    });
  });
}

function judge(tls: TlsOptions, leaf: DetailedPeerCertificate): EngineError | undefined {
  if (tls.isRevoked?.(peerChain(leaf))) return revokedPeer("client");
  const reason = tls.verifyPeer({ leafDer: leaf.raw });
  return reason === undefined ? undefined : new EngineError("peer-identity", reason);
}

export class NodeClientTunnel implements ClientTunnel {
  readonly #deps: ClientTunnelDeps;
  readonly #session: ClientHttp2Session;
  readonly #tunnel: TunnelSession;
  readonly #settings: TunnelSettings;
  #closed: TunnelClosed | undefined;
  #end: Parameters<TunnelClosed> | undefined;
  #lostStreams = 0;
  #isClosing = false;

  /** Takes the secured socket; sends the preface. */
  constructor(deps: ClientTunnelDeps, socket: TLSSocket, settings: TunnelSettings) {
    this.#deps = deps;
    this.#settings = settings;
    const options = sessionOptions(settings);
    this.#session = connectHttp2(UNUSED_URL, {
      ...options,
      settings: { ...options.settings, enablePush: false },
      createConnection: () => socket,
    });
    this.#tunnel = new TunnelSession(deps, this.#session, socket, settings, {
      unanswered: () => this.#tunnel.fail(new EngineError("ping-timeout", "HBONE ping timeout")),
      gone: (error) => this.#onGone(error),
    });
    deps.open.add(this);
  }

  get streamsMax(): number {
    const known = this.#session.remoteSettings.maxConcurrentStreams;
    return Math.min(this.#settings.streamsMax, known ?? this.#settings.streamsMax);
  }

  get usable(): boolean {
    return !this.#isClosing && !this.#session.closed && !this.#session.destroyed;
  }

  open(authority: string, headers: HeaderFields): Promise<TunnelAnswer> {
    if (!this.usable) return Promise.reject(this.#closedError());
    const list = toFlatList(
      [
        [constants.HTTP2_HEADER_METHOD, "CONNECT"],
        [constants.HTTP2_HEADER_AUTHORITY, authority],
      ],
      headers,
    );
    return new Promise((resolve, reject) => {
      let stream: ClientHttp2Stream;
      try {
        stream = this.#session.request(list, { endStream: false });
      } catch (error) {
        return reject(new EngineError("protocol", String(error), { cause: error }));
      }
      stream.on("error", () => {
        // `close` follows and tells the reason.
      });
      stream.once("close", () => {
        const fate = this.#tunnel.fate();
        if (fate?.kind === "lost") this.#lostStreams++;
        reject(fate === undefined ? streamReset(stream.rstCode) : this.#closedError());
      });
      stream.once("response", (_headers, _flags, rawHeaders) => {
        const fields = fromFlatList(rawHeaders as unknown as readonly string[]);
        const status = Number(fields.get(constants.HTTP2_HEADER_STATUS));
        fields.delete(constants.HTTP2_HEADER_STATUS);
        if (status === 200) {
          const end = new NodeStreamEnd(stream, this.#deps.pool, this.#tunnel);
          return resolve({ status, headers: fields, end });
        }
        // Node half-closes before it resets, and after that there would be nothing left to cancel.
        stream._final = (done) => done();
        stream.close(constants.NGHTTP2_CANCEL);
        stream.resume();
        resolve({ status, headers: fields, end: undefined });
      });
    });
  }

  close(): void {
    this.#isClosing = true;
    this.#tunnel.close();
  }

  destroy(): void {
    this.#isClosing = true;
    this.#tunnel.destroy();
  }

  onClosed(callback: TunnelClosed): void {
    this.#closed = callback;
    const end = this.#end;
    if (end !== undefined) queueMicrotask(() => callback(...end));
  }

  #onGone(error: EngineError | undefined): void {
    this.#end = [error, this.#lostStreams];
    this.#deps.open.delete(this);
    this.#closed?.(...this.#end);
  }

  #closedError(): EngineError {
    return this.#tunnel.closedError();
  }
}
