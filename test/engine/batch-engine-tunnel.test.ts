import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import { BatchEngine } from "../../src/engine/batch-engine.ts";
import { native } from "../../src/net/native.ts";
import { createReactor } from "../../src/net/reactor.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { HALF_CLOSED } from "../conformance/engine-lab.ts";
import { nestedTunnelSuite } from "../conformance/nested-tunnel.ts";
import { tunnelSuite } from "../conformance/tunnel.ts";
import type { TunnelSuiteOptions } from "../conformance/tunnel-exchange.ts";
import { LeakCheck } from "../support/leak-check.ts";

const options: TunnelSuiteOptions = {
  makeEngine: (clock = systemClock) =>
    new BatchEngine(
      {
        native,
        clock,
        makeReactor: createReactor,
        unexpected: (error) => assert.fail(String(error)),
      },
      HALF_CLOSED,
    ),
  leakCheck: () => new LeakCheck(),
  delay,
};

tunnelSuite("batch engine", options);
nestedTunnelSuite("batch engine", options);
