/**
 * Server handshakes on connections that Node did not accept.
 *
 * Node's TLS server judges client certificates but reports to listeners of the server, which serves
 * all connections of one certificate; the asynchronous context tells whose report it is.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import type { TlsOptions } from "../../../src/engine/engine.ts";
import { EngineError } from "../../../src/engine/engine-error.ts";
import { revokedPeer } from "../../../src/engine/handshake-error.ts";
import { handshakeError } from "./handshake-error.ts";
import { peerChain } from "./peer-chain.ts";
import { SecureContexts } from "./secure-contexts.ts";

export interface HandshakeListener {
  /** The client is trusted and who it may be. Takes the socket; nothing of it has been read. */
  readonly secured: (socket: TLSSocket, leafDer: Uint8Array) => void;
  /** The connection is being closed. */
  readonly failed: (error: EngineError) => void;
}

interface Handshake {
  readonly tls: TlsOptions;
  readonly listener: HandshakeListener;
}

export class TlsAcceptor {
  readonly #current = new AsyncLocalStorage<Handshake>();
  readonly #contexts: SecureContexts;

  constructor() {
    this.#contexts = new SecureContexts((server) => {
      server.on("secureConnection", (socket) => this.#onSecured(socket));
      server.on("tlsClientError", (error, socket) => {
        const refusal: unknown = socket.authorizationError;
        socket.destroy();
        this.#current
          .getStore()
          ?.listener.failed(
            handshakeError(error, "server", typeof refusal === "string" ? refusal : undefined),
          );
      });
    });
  }

  /**
   * Begins a handshake.
   *
   * @param makeSocket called once, so that the socket too belongs to the handshake's context.
   * @returns the socket below TLS; its owner destroys it to give the handshake up.
   * @throws Error of OpenSSL when our certificate can't be used, and what `makeSocket` throws.
   */
  accept(makeSocket: () => Socket, tls: TlsOptions, listener: HandshakeListener): Socket {
    const server = this.#contexts.server(tls);
    return this.#current.run({ tls, listener }, () => {
      const socket = makeSocket();
      // The TLS socket above it reports the same errors.
      socket.on("error", () => {});
      server.emit("connection", socket);
      return socket;
    });
  }

  #onSecured(socket: TLSSocket): void {
    const handshake = this.#current.getStore();
    const leafDer = socket.getPeerX509Certificate()?.raw;
    if (handshake === undefined || leafDer === undefined) {
      socket.destroy();
      return;
    }
    if (handshake.tls.isRevoked?.(peerChain(socket.getPeerCertificate(true)))) {
      socket.destroy();
      handshake.listener.failed(revokedPeer("server"));
      return;
    }
    const refusal = handshake.tls.verifyPeer({ leafDer });
    if (refusal === undefined) handshake.listener.secured(socket, leafDer);
    else {
      socket.destroy();
      handshake.listener.failed(new EngineError("peer-identity", refusal));
    }
  }
}
