/** Tunnels of the memory network: who refuses whom, and the requests that go through. */
import type {
  AcceptTunnelOptions,
  ClientTunnel,
  DialTunnelOptions,
  End,
  HeaderFields,
  ServerTunnel,
  TunnelAnswer,
  TunnelClosed,
  TunnelRequest,
} from "../../src/engine/engine.ts";
import { EngineError } from "../../src/engine/engine-error.ts";
import { revokedPeer } from "../../src/engine/handshake-error.ts";
import type { SocketAddress } from "../../src/mesh/socket-address.ts";
import { chainOf, leafOf, trusts } from "./memory-certificate.ts";
import { join, MemorySocket } from "./memory-socket.ts";
export type HandshakeOutcome =
  | { readonly kind: "done"; readonly clientLeaf: Uint8Array }
  | { readonly kind: "refused"; readonly client: EngineError; readonly server: EngineError };

export function shakeHands(
  client: DialTunnelOptions,
  server: AcceptTunnelOptions,
): HandshakeOutcome {
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
export class MemoryTunnel {
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
