/**
 * A listening socket and what it accepts. The reactor takes it when it is started; until then, and
 * while descriptors are short, connections wait in the kernel's queue.
 */
import { closeSync } from "node:fs";
import { getSystemErrorName } from "node:util";
import { ipFamily } from "../mesh/ip-address.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";
import type { Native } from "../net/native.ts";
import { OPERATION } from "../net/reactor.ts";
import { decodeSockaddr, SOCKADDR_BYTES } from "../net/sockaddr.ts";
import type { Clock, Timer } from "../runtime/clock.ts";
import { invariant } from "../runtime/invariant.ts";
import type { BatchLoop, Watcher } from "./batch-loop.ts";
import { BatchSocket } from "./batch-socket.ts";
import type { Listener, ListenOptions, SocketEnd } from "./engine.ts";
import { EngineError, systemError, systemErrorText } from "./engine-error.ts";
import { connectionOptions } from "./native-options.ts";
import type { OpenThings } from "./open-things.ts";

/** Out of descriptors, the queue would make the loop spin; one closes within this time or not. */
const EXHAUSTED_PAUSE_MS = 100;

/** The connection that waited is gone or broken; the next one may be fine (accept(2)). */
const OF_ONE_CONNECTION: ReadonlySet<string> = new Set([
  "EINTR",
  "ECONNABORTED",
  "ENETDOWN",
  "EPROTO",
  "ENOPROTOOPT",
  "EHOSTDOWN",
  "ENONET",
  "EHOSTUNREACH",
  "EOPNOTSUPP",
  "ENETUNREACH",
]);

export interface BatchListenerDeps {
  readonly native: Native;
  readonly clock: Clock;
  readonly loop: BatchLoop;
  readonly open: OpenThings;
  /** Of {@link Native.loadQueueMigration}, for listeners that share their port. */
  readonly queueMigrationFd: number | undefined;
}

export class BatchListener implements Listener, Watcher {
  readonly address: SocketAddress;
  readonly transparent: boolean;
  readonly #deps: BatchListenerDeps;
  readonly #asksOriginalDestination: boolean;
  readonly #fd: number;
  #id = 0;
  #accepted: (end: SocketEnd) => void = () => {};
  #failed: (error: EngineError) => void = () => {};
  #pause: Timer | undefined;
  #isClosed = false;

  /** Listens. @throws EngineError `system`. */
  constructor(deps: BatchListenerDeps, options: ListenOptions) {
    this.#deps = deps;
    this.#asksOriginalDestination = options.originalDestination;
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
        // Inherited by what is accepted, which saves a system call each.
        ...connectionOptions(options.keepAlive),
        bind: { ip, port },
        listenBacklog: options.backlog,
        ...(options.reusePort && deps.queueMigrationFd !== undefined
          ? { queueMigrationFd: deps.queueMigrationFd }
          : {}),
      });
      this.#fd = socket.fd;
      this.transparent = socket.transparent;
      this.address = deps.native.localAddress(socket.fd);
    } catch (error) {
      throw systemError(error);
    }
    deps.open.add(this);
  }

  get id(): number {
    return this.#id;
  }

  start(accepted: (end: SocketEnd) => void, failed: (error: EngineError) => void): void {
    if (this.#isClosed) return;
    this.#accepted = accepted;
    this.#failed = failed;
    this.#id = this.#deps.loop.reactor.listen(this.#fd, this.#asksOriginalDestination);
    this.#deps.loop.watch(this);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#pause?.cancel();
    this.#deps.open.delete(this);
    if (this.#id === 0) {
      closeSync(this.#fd);
      return;
    }
    this.#deps.loop.close(this, OPERATION.CLOSE);
    // With SO_REUSEPORT a sibling process gets every connection from now on, and what waits.
    this.#deps.loop.flush();
  }

  destroy(): void {
    this.close();
  }

  accepted(connectionId: number, addresses: number): void {
    const { arena } = this.#deps.loop;
    const peer = decodeSockaddr(arena, addresses);
    invariant(peer !== undefined, "the kernel names the peer of what it accepts");
    const end = new BatchSocket(this.#deps, connectionId, {
      peer,
      originalDestination: decodeSockaddr(arena, addresses + SOCKADDR_BYTES),
    });
    try {
      this.#accepted(end);
    } catch (error) {
      end.close();
      throw error;
    }
  }

  failed(errnoNumber: number): void {
    const { loop, clock } = this.#deps;
    const errno = getSystemErrorName(-errnoNumber);
    if (OF_ONE_CONNECTION.has(errno)) {
      loop.push(OPERATION.RESUME, this.#id, 0, 0);
      return;
    }
    this.#pause = clock.after(EXHAUSTED_PAUSE_MS, () => {
      loop.push(OPERATION.RESUME, this.#id, 0, 0);
    });
    this.#failed(new EngineError("system", systemErrorText(errno), { errno }));
  }

  /** One connection is not worth the others. */
  abandon(): void {}

  opened(): void {}

  read(): void {}

  ended(): void {}

  drained(): void {}

  flushed(): void {}
}
