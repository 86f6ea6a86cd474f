/** Makes one connection from a network namespace, as an application there would, and looks at it. */
import { closeSync, readSync } from "node:fs";
import { ipFamily } from "../mesh/ip-address.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Native } from "./native.ts";

/** A proxy that can't go on with a connection closes it well before. */
const SETTLED_MS = 2000;
/** As the daemon's own connects. */
const CONNECT_MS_MAX = 10_000;
const LOOK_EVERY_MS = 20;

export interface ProbeOutcome {
  /** `open`: it was still there after {@link SETTLED_MS}, or the other side has spoken. */
  readonly state: "open" | "closed" | "failed";
  /** `EOF`, or the errno's name; `undefined` while it is open. */
  readonly end: string | undefined;
  /** From the first step to the last, milliseconds. */
  readonly tookMs: number;
  /** By which the access log knows it. */
  readonly source: SocketAddress | undefined;
}

/** Sends nothing and reads at most one byte. Never rejects for what the network does. */
export async function probeConnection(
  { native, clock }: { readonly native: Native; readonly clock: Clock },
  { netnsFd, target }: { readonly netnsFd: number; readonly target: SocketAddress },
): Promise<ProbeOutcome> {
  const startedAt = clock.monotonic();
  const elapsed = (): number => clock.monotonic() - startedAt;
  const family = ipFamily(target.ip) === 6 ? "ipv6" : "ipv4";
  let fd: number | undefined;
  try {
    ({ fd } = native.socketInNamespace({ netnsFd, family, type: "stream" }));
    native.connect(fd, target.ip, target.port);
    let connectedAt: number | undefined;
    for (;;) {
      connectedAt ??= isConnected(native, fd) ? elapsed() : undefined;
      const end = endOf(fd);
      const tookMs = elapsed();
      const source = connectedAt === undefined ? undefined : native.localAddress(fd);
      if (end === "data") return { state: "open", end: undefined, tookMs, source };
      if (end !== undefined) {
        const state = connectedAt === undefined ? "failed" : "closed";
        return { state, end, tookMs, source };
      }
      if (connectedAt !== undefined && tookMs - connectedAt > SETTLED_MS) {
        return { state: "open", end: undefined, tookMs, source };
      }
      if (connectedAt === undefined && tookMs > CONNECT_MS_MAX) {
        return { state: "failed", end: "ETIMEDOUT", tookMs, source };
      }
      await new Promise<void>((resolve) => void clock.after(LOOK_EVERY_MS, resolve));
    }
  } catch (error) {
    return { state: "failed", end: codeOf(error), tookMs: elapsed(), source: undefined };
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

function isConnected(native: Native, fd: number): boolean {
  try {
    native.peerAddress(fd);
    return true;
  } catch {
    return false;
  }
}

/** @returns `undefined` while nothing was heard. */
function endOf(fd: number): string | undefined {
  try {
    return readSync(fd, new Uint8Array(1)) === 0 ? "EOF" : "data";
  } catch (error) {
    const code = codeOf(error);
    // ENOTCONN: on its way.
    return code === "EAGAIN" || code === "ENOTCONN" ? undefined : code;
  }
}

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? String(error);
}
