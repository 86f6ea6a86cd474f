/**
 * Resets a connection as soon as nothing that was sent on it is under way. A reset that overtakes data
 * is questioned by the peer's kernel (RFC 5961 section 3.2), and ours does not answer for a socket
 * that is closed and had an address of somebody else: the peer would never learn of it.
 */
import type { Native } from "../net/native.ts";
import { OPERATION } from "../net/reactor.ts";
import { readTcpInfo, type TcpInfo } from "../net/tcp-info.ts";
import type { BatchLoop, Watcher } from "./batch-loop.ts";

/** On one machine what is under way arrives sooner than this. */
const LOOK_MS = 2;

/** It is over in any case after so many, some 200 ms: a peer that far away has to take its chance. */
const LOOKS_MAX = 100;

export interface LateResetDeps {
  readonly native: Native;
  readonly loop: BatchLoop;
}

class LateReset implements Watcher {
  readonly id: number;
  readonly #deps: LateResetDeps;
  readonly #atLast: number;
  #looks = 0;

  constructor(deps: LateResetDeps, id: number, atLast: number) {
    this.#deps = deps;
    this.id = id;
    this.#atLast = atLast;
    this.#wait();
  }

  accepted(): void {}

  opened(): void {}

  read(): void {}

  ended(): void {}

  failed(): void {
    this.#leave();
  }

  drained(): void {}

  flushed(): void {}

  abandon(): void {
    this.#leave();
  }

  #wait(): void {
    this.#deps.loop.after(LOOK_MS, () => {
      const { loop } = this.#deps;
      if (loop.isClosed || !loop.isWatchedBy(this)) return;
      this.#looks++;
      if (!hasUnderWay(this.#deps, this.id)) this.#leave();
      else if (this.#looks < LOOKS_MAX) this.#wait();
      else loop.close(this, this.#atLast);
    });
  }

  #leave(): void {
    this.#deps.loop.close(this, OPERATION.RESET);
  }
}

/**
 * Takes the connection.
 *
 * @param atLast the operation for one that is not still after all this time.
 */
export function resetWhenStill(deps: LateResetDeps, id: number, atLast: number): void {
  deps.loop.watch(new LateReset(deps, id, atLast));
}

/** Whether the peer has not acknowledged all that was sent to it. */
export function hasUnderWay(deps: LateResetDeps, id: number): boolean {
  return infoOf(deps, id).unackedSegments > 0;
}

/** Whether something written waits in the kernel for the peer to take more. */
export function hasUnsent(deps: LateResetDeps, id: number): boolean {
  return infoOf(deps, id).unsentBytes > 0;
}

function infoOf({ native, loop }: LateResetDeps, id: number): typeof NOTHING {
  try {
    return readTcpInfo(native, loop.reactor.fdOf(id));
  } catch {
    // Not TCP, or just closed.
    return NOTHING;
  }
}

const NOTHING: Pick<TcpInfo, "unackedSegments" | "unsentBytes"> = {
  unackedSegments: 0,
  unsentBytes: 0,
};
