import { setTimeout as delay } from "node:timers/promises";
import { NodeEngine } from "../../src/engine/node-engine.ts";
import { native } from "../../src/net/native.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { tunnelSuite } from "../conformance/tunnel.ts";
import { LeakCheck } from "../support/leak-check.ts";

tunnelSuite("node engine", {
  makeEngine: () => new NodeEngine({ native, clock: systemClock }),
  leakCheck: () => new LeakCheck(),
  delay,
});
