import { setTimeout as delay } from "node:timers/promises";
import { native } from "../../src/net/native.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { nestedTunnelSuite } from "../conformance/nested-tunnel.ts";
import { tunnelSuite } from "../conformance/tunnel.ts";
import type { TunnelSuiteOptions } from "../conformance/tunnel-exchange.ts";
import { LeakCheck } from "../support/leak-check.ts";
import { NodeEngine } from "../support/node-engine/node-engine.ts";

const options: TunnelSuiteOptions = {
  makeEngine: (clock = systemClock) => new NodeEngine({ native, clock }),
  leakCheck: () => new LeakCheck(),
  delay,
};

tunnelSuite("node engine", options);
nestedTunnelSuite("node engine", options);
