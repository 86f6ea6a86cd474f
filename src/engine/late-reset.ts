/**
 * Resets a connection as soon as nothing that was sent on it is under way. A reset that overtakes data
 * is questioned by the peer's kernel (RFC 5961 section 3.2), and ours does not answer for a socket
 * that is closed and had an address of somebody else: the peer would never learn of it.
 */
import type { Native } from "../net/native.ts";
import { OPERATION } from "../net/reactor.ts";
import { readTcpInfo } from "../net/tcp-info.ts";
import type { BatchLoop, Watcher } from "./batch-loop.ts";

/** On one machine what is under way arrives sooner than this. */
const LOOK_MS = 2;

/** Then it is reset in any case, some 200 ms later: a peer that far away has to take its chance. */
const LOOKS_MAX = 100;

export interface LateResetDeps {
  readonly native: Native;
  readonly loop: BatchLoop;
}

class LateReset implements Watcher {
  readonly id: number;
  readonly #deps: LateResetDeps;
  #looks = 0;

  constructor(deps: LateResetDeps, id: number) {
    this.#deps = deps;
    this.id = id;
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
      if (this.#looks < LOOKS_MAX && hasUnderWay(this.#deps, this.id)) this.#wait();
      else this.#leave();
    });
  }

  #leave(): void {
    this.#deps.loop.close(this, OPERATION.RESET);
  }
}

/** Takes the connection. */
export function resetWhenStill(deps: LateResetDeps, id: number): void {
  deps.loop.watch(new LateReset(deps, id));
}

/** Whether the peer has not acknowledged all that was sent to it. */
export function hasUnderWay({ native, loop }: LateResetDeps, id: number): boolean {
  try {
    return readTcpInfo(native, loop.reactor.fdOf(id)).unackedSegments > 0;
  } catch {
    // Not TCP, or just closed.
    return false;
  }
}
