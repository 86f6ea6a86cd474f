/** Finds descriptors and event-loop handles that a test left open. */
import assert from "node:assert/strict";
import { readdirSync, readlinkSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";

/**
 * Closing finishes on a later turn of the event loop, on a busy machine much later; what is open after
 * this time stays open.
 */
const SETTLE_MS_MAX = 20_000;
const POLL_MS = 5;

/** Remembers what is open now; construct before the test opens anything. */
export class LeakCheck {
  readonly #fds: ReadonlyMap<string, string>;
  readonly #handles: ReadonlyMap<string, number>;

  constructor() {
    this.#fds = openFds();
    this.#handles = activeHandles();
  }

  /** Waits a moment for things to close. @throws AssertionError naming what is still open. */
  async assertNone(): Promise<void> {
    let leaks = this.#leaks();
    const until = performance.now() + SETTLE_MS_MAX;
    while (leaks.length > 0 && performance.now() < until) {
      await delay(POLL_MS);
      leaks = this.#leaks();
    }
    assert.deepEqual(leaks, [], "left open");
  }

  #leaks(): string[] {
    const fds = [...openFds()].filter(([fd, target]) => this.#fds.get(fd) !== target);
    const handles = [...activeHandles()].filter(([name, n]) => n > (this.#handles.get(name) ?? 0));
    return [
      ...fds.map(([fd, target]) => `fd ${fd}: ${target}`),
      ...handles.map(([name, n]) => `${n - (this.#handles.get(name) ?? 0)} ${name}`),
    ];
  }
}

/** Descriptor → what it refers to. */
function openFds(): Map<string, string> {
  const fds = new Map<string, string>();
  for (const fd of readdirSync("/proc/self/fd")) {
    try {
      fds.set(fd, readlinkSync(`/proc/self/fd/${fd}`));
    } catch {
      // The descriptor of the listing itself is gone by now.
    }
  }
  return fds;
}

/** Kind of handle → how many keep the process running, except the waiting of this check. */
function activeHandles(): Map<string, number> {
  const counts = new Map<string, number>();
  for (const name of process.getActiveResourcesInfo()) {
    if (name !== "Timeout") counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return counts;
}
