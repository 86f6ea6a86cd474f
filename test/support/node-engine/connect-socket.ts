/** Outgoing TCP connections, made inside a namespace and connected by Node. */
import { closeSync } from "node:fs";
import { type OnReadOpts, Socket } from "node:net";
import type { ConnectOptions } from "../../../src/engine/engine.ts";
import { EngineError, systemError } from "../../../src/engine/engine-error.ts";
import { connectionOptions } from "../../../src/engine/native-options.ts";
import type { OpenThings } from "../../../src/engine/open-things.ts";
import { ODD_ATTEMPTS_MAX, type SourcePorts } from "../../../src/engine/source-ports.ts";
import { ipFamily } from "../../../src/mesh/ip-address.ts";
import type { Native } from "../../../src/net/native.ts";
import type { Clock } from "../../../src/runtime/clock.ts";

/** What the original's connects say when their time is over. */
const TIMEOUT_TEXT = "deadline has elapsed";

export interface ConnectDeps {
  readonly native: Native;
  readonly clock: Clock;
  readonly open: OpenThings;
  readonly sourcePorts: SourcePorts;
}

/**
 * Connects.
 *
 * @param makeSocket makes the unconnected socket and takes the descriptor; told apart because reads
 *   are wired at birth. Called again when a source port turns out to be taken.
 * @param options a spoofed source decides the address family.
 * @throws EngineError `connect-timeout` or `system`.
 */
export async function connectSocket(
  deps: ConnectDeps,
  options: ConnectOptions,
  makeSocket: (fd: number) => Socket,
): Promise<Socket> {
  const oddAttempts = options.source === undefined ? 0 : ODD_ATTEMPTS_MAX;
  for (let i = 0; i < oddAttempts; i++) {
    try {
      return await attempt(deps, options, deps.sourcePorts.next(), makeSocket);
    } catch (error) {
      if (!isPortTaken(error)) throw error;
    }
  }
  return attempt(deps, options, 0, makeSocket);
}

function isPortTaken(error: unknown): boolean {
  return (
    error instanceof EngineError &&
    (error.errno === "EADDRNOTAVAIL" || error.errno === "EADDRINUSE")
  );
}

/** @param sourcePort with a spoofed source; 0 leaves the choice to the kernel. */
function attempt(
  deps: ConnectDeps,
  options: ConnectOptions,
  sourcePort: number,
  makeSocket: (fd: number) => Socket,
): Promise<Socket> {
  return new Promise((resolve, reject) => {
    let socket: Socket;
    try {
      socket = makeSocket(unconnectedSocket(deps.native, options, sourcePort));
    } catch (error) {
      return reject(systemError(error));
    }
    const timer = deps.clock.after(options.timeoutMs, () => {
      socket.off("connect", connected);
      socket.destroy(new EngineError("connect-timeout", TIMEOUT_TEXT));
    });
    deps.open.add(socket);
    function connected(): void {
      timer.cancel();
      deps.open.delete(socket);
      resolve(socket);
    }
    // Stays when connected, for errors before the socket finds its next owner.
    socket.on("error", (error) => {
      reject(error instanceof EngineError ? error : systemError(error));
    });
    socket.once("connect", connected);
    socket.once("close", () => {
      timer.cancel();
      deps.open.delete(socket);
      reject(new EngineError("system", "the engine was closed"));
    });
    socket.connect({ host: options.remote.ip, port: options.remote.port });
  });
}

/**
 * A Node socket over a descriptor, which it takes, also when it throws.
 *
 * @param onread where reads go; without it the socket is one for TLS, which has no half-close.
 */
export function openSocket(fd: number, onread?: OnReadOpts): Socket {
  try {
    return new Socket(onread === undefined ? { fd } : { fd, allowHalfOpen: true, onread });
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function unconnectedSocket(native: Native, options: ConnectOptions, sourcePort: number): number {
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
          // TIME_WAITs of the port to other destinations do not matter.
          reuseAddress: true,
          // Without it the kernel searches a free port among the TIME_WAITs of every bind.
          bindAddressNoPort: sourcePort === 0,
          bind: { ip: source, port: sourcePort },
        }),
  });
  return fd;
}
