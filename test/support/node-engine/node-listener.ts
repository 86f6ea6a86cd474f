/**
 * A listening socket and its accept loop.
 *
 * Node never learns of the listening descriptor, so closing it takes effect at once: with
 * SO_REUSEPORT a sibling process gets every connection from then on.
 */
import { closeSync } from "node:fs";
import type { Listener, ListenOptions, SocketEnd } from "../../../src/engine/engine.ts";
import { type EngineError, errnoOf, systemError } from "../../../src/engine/engine-error.ts";
import { connectionOptions } from "../../../src/engine/native-options.ts";
import type { OpenThings } from "../../../src/engine/open-things.ts";
import { ipFamily } from "../../../src/mesh/ip-address.ts";
import type { SocketAddress } from "../../../src/mesh/socket-address.ts";
import type { Native, NativeWatch } from "../../../src/net/native.ts";
import type { Clock, Timer } from "../../../src/runtime/clock.ts";
import { originalDestination } from "../original-destination.ts";
import type { BufferPool } from "./buffer-pool.ts";
import { NodeSocketEnd } from "./node-socket-end.ts";

/** Connections taken before others on the event loop get their turn. */
const ACCEPTS_PER_TURN_MAX = 64;

/** Out of descriptors, the queue would make the loop spin; one closes within this time or not. */
const EXHAUSTED_PAUSE_MS = 100;

export interface ListenerDeps {
  readonly native: Native;
  readonly clock: Clock;
  readonly pool: BufferPool;
  readonly open: OpenThings;
}

export class NodeListener implements Listener {
  readonly address: SocketAddress;
  readonly transparent: boolean;
  readonly #deps: ListenerDeps;
  readonly #options: ListenOptions;
  readonly #entry: { destroy(): void } = { destroy: () => this.close() };
  readonly #fd: number;
  #watch: NativeWatch | undefined;
  #pause: Timer | undefined;
  #isClosed = false;

  /** Listens. @throws EngineError `system`. */
  constructor(deps: ListenerDeps, options: ListenOptions) {
    this.#deps = deps;
    this.#options = options;
    const { ip, port } = options.address;
    try {
      const socket = deps.native.socketInNamespace({
        ...(options.netns === undefined ? {} : { netnsFd: options.netns.fd }),
        ...(ipFamily(ip) === 6
          ? { family: "ipv6" as const, dualStack: ip === "::" }
          : { family: "ipv4" as const }),
        type: "stream",
        ...(options.mark === undefined ? {} : { mark: options.mark }),
        ...(options.transparent === "off" ? {} : { transparent: options.transparent }),
        reuseAddress: true,
        reusePort: options.reusePort,
        // Inherited by what is accepted.
        ...connectionOptions(options.keepAlive),
        bind: { ip, port },
        listenBacklog: options.backlog,
      });
      this.#fd = socket.fd;
      this.transparent = socket.transparent;
      this.address = deps.native.localAddress(socket.fd);
    } catch (error) {
      throw systemError(error);
    }
    deps.open.add(this.#entry);
  }

  start(accepted: (end: SocketEnd) => void, failed: (error: EngineError) => void): void {
    if (this.#isClosed) return;
    this.#watch = this.#deps.native.watchReadable(this.#fd, () => {
      for (let i = 0; i < ACCEPTS_PER_TURN_MAX && !this.#isClosed; i++) {
        let end: SocketEnd | undefined;
        try {
          end = this.#accept();
        } catch (error) {
          const errno = errnoOf(error);
          if (errno === undefined) throw error;
          if (errno === "EMFILE" || errno === "ENFILE") this.#rest(accepted, failed);
          return failed(systemError(error));
        }
        if (end === undefined) return;
        accepted(end);
      }
    });
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#watch?.close();
    this.#pause?.cancel();
    closeSync(this.#fd);
    this.#deps.open.delete(this.#entry);
  }

  /** Lets connections wait in the kernel's queue for a while. */
  #rest(accepted: (end: SocketEnd) => void, failed: (error: EngineError) => void): void {
    this.#watch?.close();
    this.#pause = this.#deps.clock.after(EXHAUSTED_PAUSE_MS, () => this.start(accepted, failed));
  }

  /** @returns `undefined` when no connection waits. */
  #accept(): NodeSocketEnd | undefined {
    const { native, pool } = this.#deps;
    const fd = native.accept(this.#fd);
    if (fd === undefined) return undefined;
    try {
      const local = native.localAddress(fd);
      const original = this.#options.originalDestination
        ? originalDestination(native, fd)
        : undefined;
      return NodeSocketEnd.ofDescriptor(fd, pool, {
        local,
        peer: native.peerAddress(fd),
        originalDestination: original ?? local,
      });
    } catch (error) {
      closeSync(fd);
      // It was reset while it waited.
      if (errnoOf(error) === "ENOTCONN") return this.#accept();
      throw error;
    }
  }
}
