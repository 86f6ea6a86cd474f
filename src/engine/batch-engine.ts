/**
 * The engine on the native reactor: sockets and TLS in batches, HTTP/2 and every decision here.
 *
 * A connection is a number of the reactor and one small record. Bytes lie in one arena and are
 * written in the turn that read them; nothing is copied on the common path.
 */
import type { IpAddress } from "../mesh/ip-address.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";
import type { Native } from "../net/native.ts";
import type { ReactorOptions } from "../net/reactor.ts";
import type { Clock } from "../runtime/clock.ts";
import { invariant } from "../runtime/invariant.ts";
import { BatchClientTunnel } from "./batch-client-tunnel.ts";
import { BatchConnect } from "./batch-connect.ts";
import { BatchContexts } from "./batch-contexts.ts";
import { BatchListener } from "./batch-listener.ts";
import { BatchLoop, type MakeReactor } from "./batch-loop.ts";
import { type BatchEnd, BatchRelay } from "./batch-relay.ts";
import { BatchServerTunnel } from "./batch-server-tunnel.ts";
import { BatchSocket, type BatchSocketDeps } from "./batch-socket.ts";
import { BatchStream } from "./batch-stream.ts";
import type {
  AcceptTunnelOptions,
  ClientTunnel,
  ConnectOptions,
  DialTunnelOptions,
  End,
  Engine,
  Listener,
  ListenOptions,
  Relay,
  RelayOutcome,
  ServerTunnel,
  SocketEnd,
  TunnelOptions,
} from "./engine.ts";
import { systemError } from "./engine-error.ts";
import { destroyAll, type OpenThings } from "./open-things.ts";
import { QuietRelays } from "./quiet-relays.ts";
import { SourcePorts } from "./source-ports.ts";
import { UnconnectedSockets } from "./unconnected-sockets.ts";

/** Sizes of the reactor, each where its curve of cost against size gets flat. */
const REACTOR_SIZES: ReactorOptions = {
  arenaBytes: 2 * 1024 * 1024,
  scratchBytes: 256 * 1024,
  eventsMax: 1024,
  operationsMax: 4096,
  connectionsMax: 65_535,
  plainReadBytes: 512 * 1024,
  cipherReadBytes: 256 * 1024,
  cipherSendBytes: 64 * 1024,
  acceptsPerTurn: 64,
  // More than every window of a tunnel allows.
  queueBytesMax: 64 * 1024 * 1024,
  // A sixth of what AES-GCM allows.
  rekeyBytes: 64 * 1024 ** 3,
};

export interface BatchEngineDeps {
  readonly native: Native;
  readonly clock: Clock;
  readonly makeReactor: MakeReactor;
  /** Told of what should never be thrown: a bug that cost one connection. */
  readonly unexpected: (error: unknown) => void;
}

export interface BatchEngineOptions extends Partial<ReactorOptions> {
  /** A relay of which one direction has ended is reset when for so long nothing moves. */
  readonly halfClosedIdleMs: number;
  /** Any relay is ended when for so long nothing moves. `undefined`: never. */
  readonly idleMs?: number | undefined;
  /** Of {@link Native.loadQueueMigration}; stays the caller's. Left out: queues end with listeners. */
  readonly queueMigrationFd?: number | undefined;
}

export class BatchEngine implements Engine {
  readonly #halfClosed: QuietRelays;
  readonly #deps: {
    readonly native: Native;
    readonly clock: Clock;
    readonly quiet: readonly QuietRelays[];
    readonly loop: BatchLoop;
    readonly contexts: BatchContexts;
    readonly open: OpenThings;
    readonly sockets: UnconnectedSockets;
    readonly sourcePorts: SourcePorts;
    readonly unexpected: (error: unknown) => void;
    readonly queueMigrationFd: number | undefined;
  };

  constructor(
    deps: BatchEngineDeps,
    { halfClosedIdleMs, idleMs, queueMigrationFd, ...sizes }: BatchEngineOptions,
  ) {
    const { native, clock, unexpected } = deps;
    this.#halfClosed = new QuietRelays(clock, { kind: "half-closed", quietMs: halfClosedIdleMs });
    const quiet = [this.#halfClosed];
    if (idleMs !== undefined) quiet.push(new QuietRelays(clock, { kind: "idle", quietMs: idleMs }));
    const loop = new BatchLoop(deps, { ...REACTOR_SIZES, ...sizes });
    const contexts = new BatchContexts();
    // Nanoseconds since boot differ between threads and processes.
    const sourcePorts = new SourcePorts(clock.monotonic() * 1e6);
    this.#deps = {
      native,
      clock,
      quiet,
      loop,
      contexts,
      open: new Set(),
      sockets: new UnconnectedSockets(native),
      sourcePorts,
      unexpected,
      queueMigrationFd,
    };
  }

  listen(options: ListenOptions): Listener {
    return new BatchListener(this.#deps, options);
  }

  connect(options: ConnectOptions): Promise<SocketEnd> {
    return new Promise((resolve, reject) => {
      new BatchConnect(this.#deps, options, {
        connected: (id) => resolve(connectedEnd(this.#deps, id, options.remote)),
        wasReset: (id, errno) => {
          const end = connectedEnd(this.#deps, id, options.remote);
          end.failed(errno);
          resolve(end);
        },
        failed: reject,
      });
    });
  }

  relay(downstream: End, upstream: End, finished: (outcome: RelayOutcome) => void): Relay {
    return new BatchRelay(this.#deps, endOf(downstream), endOf(upstream), finished);
  }

  dialTunnel(options: DialTunnelOptions): Promise<ClientTunnel> {
    return BatchClientTunnel.dial(this.#deps, options);
  }

  /**
   * TLS works on connections of the reactor, so the stream is relayed to one end of a pair of them,
   * and the tunnel begins at the other.
   */
  nestTunnel(outer: End, options: TunnelOptions, released: () => void): Promise<ClientTunnel> {
    let ids: readonly [number, number];
    try {
      ids = this.#deps.loop.reactor.pair();
    } catch (error) {
      outer.close();
      this.#deps.loop.later(released);
      return Promise.reject(systemError(error));
    }
    const [inner, carrier] = ids;
    const end = connectedEnd(this.#deps, carrier, NOWHERE);
    // The tunnel inside says when its peer is gone, and the relays of its streams when they are idle.
    const deps = { ...this.#deps, quiet: [this.#halfClosed] };
    new BatchRelay(deps, end, endOf(outer), released);
    return BatchClientTunnel.begin(this.#deps, inner, options);
  }

  acceptTunnel(end: SocketEnd, options: AcceptTunnelOptions): ServerTunnel {
    invariant(end instanceof BatchSocket, "an end belongs to the engine that made it");
    return new BatchServerTunnel(this.#deps, end, options);
  }

  close(): void {
    const { open, quiet, loop } = this.#deps;
    destroyAll(open);
    for (const relays of quiet) relays.close();
    loop.destroy();
  }
}

/** Where one end of a pair is connected to. */
const NOWHERE: SocketAddress = { ip: "0.0.0.0" as IpAddress, port: 0 };

function connectedEnd(deps: BatchSocketDeps, id: number, remote: SocketAddress): BatchSocket {
  return new BatchSocket(deps, id, { peer: remote, originalDestination: remote });
}

function endOf(end: End): BatchEnd {
  invariant(
    end instanceof BatchSocket || end instanceof BatchStream,
    "an end belongs to the engine that made it",
  );
  return end;
}
