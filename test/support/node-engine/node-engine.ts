/** The engine on Node's own net, tls and http2: simple, right and everywhere available. */
import type { Socket } from "node:net";
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
} from "../../../src/engine/engine.ts";
import { EngineError, systemErrorText } from "../../../src/engine/engine-error.ts";
import { destroyAll } from "../../../src/engine/open-things.ts";
import { SourcePorts } from "../../../src/engine/source-ports.ts";
import { parseIpAddress } from "../../../src/mesh/ip-address.ts";
import type { SocketAddress } from "../../../src/mesh/socket-address.ts";
import type { Native } from "../../../src/net/native.ts";
import type { Clock } from "../../../src/runtime/clock.ts";
import { invariant } from "../../../src/runtime/invariant.ts";
import { BufferPool } from "./buffer-pool.ts";
import { type ConnectDeps, connectSocket, openSocket } from "./connect-socket.ts";
import { type ClientTunnelDeps, NodeClientTunnel, secureClient } from "./node-client-tunnel.ts";
import { type ListenerDeps, NodeListener } from "./node-listener.ts";
import { NodeRelay } from "./node-relay.ts";
import { NodeServerTunnel, type ServerTunnelDeps } from "./node-server-tunnel.ts";
import { NodeSocketEnd } from "./node-socket-end.ts";
import { NodeStreamEnd } from "./node-stream-end.ts";
import type { RelaySide } from "./relay-side.ts";
import { SecureContexts } from "./secure-contexts.ts";
import { TlsAcceptor } from "./tls-acceptor.ts";

export interface NodeEngineOptions {
  /** Size of one read; larger ones cost memory per busy connection, smaller ones CPU. */
  readonly readBytes: number;
  /** Read buffers kept for reuse when nobody needs them. */
  readonly idleBuffersMax: number;
}

/** 256 KiB is where the cost per byte of a plain read stops falling steeply. */
const DEFAULTS: NodeEngineOptions = { readBytes: 256 * 1024, idleBuffersMax: 32 };

export class NodeEngine implements Engine {
  readonly #deps: ListenerDeps & ClientTunnelDeps & ServerTunnelDeps & ConnectDeps;

  constructor(
    deps: { readonly native: Native; readonly clock: Clock },
    options: Partial<NodeEngineOptions> = {},
  ) {
    const { readBytes, idleBuffersMax } = { ...DEFAULTS, ...options };
    this.#deps = {
      native: deps.native,
      clock: deps.clock,
      pool: new BufferPool({ bufferBytes: readBytes, idleMax: idleBuffersMax }),
      contexts: new SecureContexts(() => {}),
      acceptor: new TlsAcceptor(),
      open: new Set(),
      // Nanoseconds since boot differ between threads and processes.
      sourcePorts: new SourcePorts(deps.clock.monotonic() * 1e6),
    };
  }

  listen(options: ListenOptions): Listener {
    return new NodeListener(this.#deps, options);
  }

  async connect(options: ConnectOptions): Promise<SocketEnd> {
    let pending: ReturnType<typeof NodeSocketEnd.connecting> | undefined;
    const socket = await connectSocket(this.#deps, options, (fd) => {
      pending = NodeSocketEnd.connecting(fd, this.#deps.pool, options.remote);
      return pending.socket;
    });
    invariant(pending !== undefined, "a connected socket was made");
    return pending.connected(localAddress(socket));
  }

  relay(downstream: End, upstream: End, finished: (outcome: RelayOutcome) => void): Relay {
    const relay = new NodeRelay(this.#deps, sideOf(downstream), sideOf(upstream), finished);
    relay.start();
    return relay;
  }

  async dialTunnel(options: DialTunnelOptions): Promise<ClientTunnel> {
    const socket = await connectSocket(this.#deps, options.connect, (fd) => openSocket(fd));
    const secured = await secureClient(this.#deps, socket, options);
    return new NodeClientTunnel(this.#deps, secured, options.settings);
  }

  async nestTunnel(
    outer: End,
    options: TunnelOptions,
    released: () => void,
  ): Promise<ClientTunnel> {
    invariant(outer instanceof NodeStreamEnd, "a tunnel is nested in a stream");
    const stream = outer.takeStream(released);
    const secured = await secureClient(this.#deps, stream, options);
    return new NodeClientTunnel(this.#deps, secured, options.settings);
  }

  acceptTunnel(end: SocketEnd, options: AcceptTunnelOptions): ServerTunnel {
    invariant(end instanceof NodeSocketEnd, "an end belongs to the engine that made it");
    return new NodeServerTunnel(this.#deps, end, options);
  }

  /** Closes everything that is open; ends that were never relayed belong to their owners. */
  close(): void {
    destroyAll(this.#deps.open);
  }
}

function sideOf(end: End): RelaySide {
  invariant(
    end instanceof NodeSocketEnd || end instanceof NodeStreamEnd,
    "an end belongs to the engine that made it",
  );
  return end;
}

/** @throws EngineError when the peer left in the moment of the connect. */
function localAddress(socket: Socket): SocketAddress {
  const ip = parseIpAddress(socket.localAddress ?? "");
  if (ip !== undefined && socket.localPort !== undefined) return { ip, port: socket.localPort };
  socket.destroy();
  throw new EngineError("system", systemErrorText("ENOTCONN"), { errno: "ENOTCONN" });
}
