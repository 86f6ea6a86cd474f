import { setTimeout as delay } from "node:timers/promises";
import { native } from "../../src/net/native.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { tunnelSuite } from "../conformance/tunnel.ts";
import { LeakCheck } from "../support/leak-check.ts";
import { NodeEngine } from "../support/node-engine/node-engine.ts";

tunnelSuite("node engine", {
  makeEngine: () => new NodeEngine({ native, clock: systemClock }),
  leakCheck: () => new LeakCheck(),
  delay,
});
