import assert from "node:assert/strict";
import { test } from "node:test";
import type { HalfEnd } from "../../src/engine/engine.ts";
import { EngineError } from "../../src/engine/engine-error.ts";
import { outboundConnectError, relayFailure } from "../../src/proxy/engine-failure.ts";
import { responseFlag } from "../../src/proxy/proxy-error.ts";

test("what went wrong below is kept as the cause", () => {
  const refused = new EngineError("system", "connect ECONNREFUSED", { errno: "ECONNREFUSED" });
  assert.equal(outboundConnectError(refused, true).cause, refused);
});

const gone = new EngineError("disconnected", "closed");
const broken = new EngineError("system", "write EPIPE", { errno: "EPIPE" });
const halfClosed = new EngineError("half-closed", "half-closed and idle for 45s");
const idle = new EngineError("idle", "idle for 3600s");
const relays: readonly [
  sent: HalfEnd,
  received: HalfEnd,
  error: EngineError | undefined,
  expected: string | undefined,
  flag?: string,
][] = [
  ["fin", "fin", undefined, undefined],
  ["reset", "stopped", undefined, undefined],
  ["error", "fin", gone, "send: destination disconnected before all data was written"],
  ["fin", "error", gone, "receive: client disconnected before all data was written"],
  ["error", "error", broken, "send: io error: Broken pipe (os error 32)"],
  ["stopped", "error", new EngineError("protocol", "bad frame"), "receive: io error: bad frame"],
  ["fin", "stopped", halfClosed, "half-closed and idle for 45s", "IDLE_TIMEOUT"],
  ["stopped", "stopped", idle, "idle for 3600s", "IDLE_TIMEOUT"],
];
for (const [sent, received, error, expected, flag = "CONNECT"] of relays) {
  test(`a relay that ended ${sent} and ${received} says ${expected ?? "nothing"}`, () => {
    const failure = relayFailure({ sent, received, error });
    assert.equal(failure?.message, expected);
    assert.equal(responseFlag(failure), expected === undefined ? "-" : flag);
  });
}
