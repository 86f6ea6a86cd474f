/** Outgoing TCP connections, made inside a namespace and connected by the reactor. */
import { closeSync } from "node:fs";
import { getSystemErrorName } from "node:util";
import { OPERATION } from "../net/reactor.ts";
import type { Clock, Timer } from "../runtime/clock.ts";
import type { BatchLoop, Watcher } from "./batch-loop.ts";
import type { ConnectOptions } from "./engine.ts";
import { EngineError, errnoOf, systemError, systemErrorText } from "./engine-error.ts";
import type { OpenThings } from "./open-things.ts";
import { ODD_ATTEMPTS_MAX, type SourcePorts } from "./source-ports.ts";
import type { UnconnectedSockets } from "./unconnected-sockets.ts";

/** What the original's connects say when their time is over. */
const TIMEOUT_TEXT = "deadline has elapsed";

export interface BatchConnectDeps {
  readonly clock: Clock;
  readonly loop: BatchLoop;
  readonly open: OpenThings;
  readonly sockets: UnconnectedSockets;
  readonly sourcePorts: SourcePorts;
}

export interface BatchConnectListener {
  /** Called in the turn of the connect. Takes the connection, and watches it before it returns. */
  readonly connected: (id: number) => void;
  /**
   * The peer took the connection and reset it before we looked. As `connected`; nothing more will
   * happen on it. Left out, it is a failed connect.
   */
  readonly wasReset?: (id: number, errno: number) => void;
  /** `connect-timeout` or `system`. */
  readonly failed: (error: EngineError) => void;
}

/** From the socket to the answer of the peer; with other source ports while they are taken. */
export class BatchConnect implements Watcher {
  readonly #deps: BatchConnectDeps;
  readonly #options: ConnectOptions;
  readonly #listener: BatchConnectListener;
  readonly #timer: Timer;
  #id = 0;
  /** Odd ports that may still be tried; 0 leaves the choice to the kernel. */
  #oddAttempts: number;

  /**
   * @param options a spoofed source decides the address family.
   * @throws EngineError `system` when it fails at once.
   */
  constructor(deps: BatchConnectDeps, options: ConnectOptions, listener: BatchConnectListener) {
    this.#deps = deps;
    this.#options = options;
    this.#listener = listener;
    this.#oddAttempts = options.source === undefined ? 0 : ODD_ATTEMPTS_MAX;
    const error = this.#begin();
    if (error !== undefined) throw error;
    deps.open.add(this);
    this.#timer = deps.clock.after(options.timeoutMs, () => {
      this.#fail(new EngineError("connect-timeout", TIMEOUT_TEXT));
    });
  }

  get id(): number {
    return this.#id;
  }

  opened(): void {
    this.#settle();
    this.#listener.connected(this.#id);
  }

  failed(errnoNumber: number): void {
    const errno = getSystemErrorName(-errnoNumber);
    const { wasReset } = this.#listener;
    // Nobody there is another errno.
    if (errno === "ECONNRESET" && wasReset !== undefined) {
      this.#settle();
      wasReset(this.#id, errnoNumber);
    } else if (this.#oddAttempts > 0 && isPortTaken(errno)) {
      this.#deps.loop.close(this, OPERATION.CLOSE);
      this.#oddAttempts--;
      const error = this.#begin();
      if (error !== undefined) this.#fail(error);
    } else this.#fail(new EngineError("system", systemErrorText(errno), { errno }));
  }

  destroy(): void {
    this.#fail(new EngineError("system", "the engine was closed"));
  }

  abandon(error: unknown): void {
    this.#fail(systemError(error));
  }

  accepted(): void {}

  read(): void {}

  ended(): void {}

  drained(): void {}

  flushed(): void {}

  /** @returns why it failed at once. */
  #begin(): EngineError | undefined {
    for (;;) {
      try {
        this.#id = this.#connect(this.#oddAttempts > 0 ? this.#deps.sourcePorts.next() : 0);
        this.#deps.loop.watch(this);
        return undefined;
      } catch (error) {
        if (this.#oddAttempts === 0 || !isPortTaken(errnoOf(error))) return systemError(error);
        this.#oddAttempts--;
      }
    }
  }

  #connect(sourcePort: number): number {
    const { sockets, loop } = this.#deps;
    const { ip, port } = this.#options.remote;
    const fd = sockets.make(this.#options, sourcePort);
    try {
      return loop.reactor.connect(fd, ip, port);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  #fail(error: EngineError): void {
    this.#settle();
    this.#deps.loop.close(this, OPERATION.CLOSE);
    this.#listener.failed(error);
  }

  #settle(): void {
    this.#timer.cancel();
    this.#deps.open.delete(this);
  }
}

function isPortTaken(errno: string | undefined): boolean {
  return errno === "EADDRNOTAVAIL" || errno === "EADDRINUSE";
}
