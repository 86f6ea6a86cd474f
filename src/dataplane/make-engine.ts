/** The engine that a data thread runs on; the one place that chooses it. */
import { BatchEngine, type BatchEngineOptions } from "../engine/batch-engine.ts";
import type { Engine } from "../engine/engine.ts";
import { native } from "../net/native.ts";
import { createReactor } from "../net/reactor.ts";
import type { Clock } from "../runtime/clock.ts";
import { errorStack } from "../runtime/error-text.ts";
import type { Logger } from "../telemetry/logger.ts";

/** Part of `DataThreadOptions`. */
export interface ThreadEngineOptions {
  readonly proxy: Pick<BatchEngineOptions, "halfClosedIdleMs" | "idleMs">;
  readonly queueMigrationFd?: number;
}

/** @param log told of what should never be thrown: a bug that cost one connection. */
export function makeEngine(
  clock: Clock,
  log: Logger,
  { proxy, queueMigrationFd }: ThreadEngineOptions,
): Engine {
  const unexpected = (error: unknown): void => {
    log
      .target("ztunnel::engine")
      .write("error", `closed a connection because of a bug: ${errorStack(error)}`);
  };
  return new BatchEngine(
    { native, clock, makeReactor: createReactor, unexpected },
    { halfClosedIdleMs: proxy.halfClosedIdleMs, idleMs: proxy.idleMs, queueMigrationFd },
  );
}
