/** Outgoing TCP connections, made inside a namespace and connected by the reactor. */
import { ipFamily } from "../mesh/ip-address.ts";
import type { Native } from "../net/native.ts";
import { OPERATION } from "../net/reactor.ts";
import type { Clock, Timer } from "../runtime/clock.ts";
import type { BatchLoop, Watcher } from "./batch-loop.ts";
import type { ConnectOptions } from "./engine.ts";
import { EngineError, systemError, systemErrorText } from "./engine-error.ts";
import { connectionOptions } from "./native-options.ts";
import type { OpenThings } from "./open-things.ts";

/** What the original's connects say when their time is over. */
const TIMEOUT_TEXT = "deadline has elapsed";

export interface BatchConnectDeps {
  readonly native: Native;
  readonly clock: Clock;
  readonly loop: BatchLoop;
  readonly open: OpenThings;
}

export interface BatchConnectListener {
  /** Called in the turn of the connect. Takes the connection, and watches it before it returns. */
  readonly connected: (id: number) => void;
  /**
   * The peer took the connection and reset it before we looked. As `connected`; nothing more will
   * happen on it. Left out, it is a failed connect.
   */
  readonly wasReset?: (id: number) => void;
  /** `connect-timeout` or `system`. */
  readonly failed: (error: EngineError) => void;
}

/** One attempt, from the socket to the answer of the peer. */
export class BatchConnect implements Watcher {
  readonly id: number;
  readonly #deps: BatchConnectDeps;
  readonly #listener: BatchConnectListener;
  readonly #timer: Timer;

  /**
   * @param options a spoofed source decides the address family.
   * @throws EngineError `system` when it fails at once.
   */
  constructor(deps: BatchConnectDeps, options: ConnectOptions, listener: BatchConnectListener) {
    this.#deps = deps;
    this.#listener = listener;
    try {
      const fd = unconnectedSocket(deps.native, options);
      this.id = deps.loop.reactor.connect(fd, options.remote.ip, options.remote.port);
    } catch (error) {
      throw systemError(error);
    }
    deps.loop.watch(this);
    deps.open.add(this);
    this.#timer = deps.clock.after(options.timeoutMs, () => {
      this.#fail(new EngineError("connect-timeout", TIMEOUT_TEXT));
    });
  }

  opened(): void {
    this.#settle();
    this.#listener.connected(this.id);
  }

  failed(): void {
    const errno = this.#deps.loop.reactor.errorText(this.id);
    const { wasReset } = this.#listener;
    // Nobody there is another errno.
    if (errno === "ECONNRESET" && wasReset !== undefined) {
      this.#settle();
      wasReset(this.id);
      return;
    }
    this.#fail(new EngineError("system", systemErrorText(errno), { errno }));
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

function unconnectedSocket(native: Native, options: ConnectOptions): number {
  const { netns, mark, source, remote } = options;
  const { fd } = native.socketInNamespace({
    ...(netns === undefined ? {} : { netnsFd: netns.fd }),
    family: ipFamily(source ?? remote.ip) === 6 ? "ipv6" : "ipv4",
    type: "stream",
    ...(mark === undefined ? {} : { mark }),
    ...connectionOptions(options.keepAlive),
    ...(source === undefined
      ? {}
      : {
          transparent: "required" as const,
          freebind: true,
          // Without it the kernel searches a free port among the TIME_WAITs of every bind.
          bindAddressNoPort: true,
          bind: { ip: source, port: 0 },
        }),
  });
  return fd;
}
