/** The smallest tables that the reactor takes: every list overflows all the time. */
import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import { BatchEngine } from "../../src/engine/batch-engine.ts";
import { native } from "../../src/net/native.ts";
import { createReactor } from "../../src/net/reactor.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { byteStreamSuite } from "../conformance/byte-stream.ts";
import { HALF_CLOSED } from "../conformance/engine-lab.ts";
import { LeakCheck } from "../support/leak-check.ts";

const KIB = 1024;

byteStreamSuite("batch engine with the smallest tables", {
  makeEngine: () =>
    new BatchEngine(
      {
        native,
        clock: systemClock,
        makeReactor: createReactor,
        unexpected: (error) => assert.fail(String(error)),
      },
      {
        ...HALF_CLOSED,
        arenaBytes: 64 * KIB,
        scratchBytes: 17 * KIB,
        eventsMax: 16,
        operationsMax: 1,
        plainReadBytes: 20_000,
        cipherReadBytes: 10_000,
        cipherSendBytes: 5000,
        acceptsPerTurn: 1,
      },
    ),
  leakCheck: () => new LeakCheck(),
  delay,
});
