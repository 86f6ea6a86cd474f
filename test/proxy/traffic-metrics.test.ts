import assert from "node:assert/strict";
import { test } from "node:test";
import type { Relay } from "../../src/engine/engine.ts";
import {
  TRAFFIC_LABELS,
  TrafficMetrics,
  type TrafficSample,
} from "../../src/proxy/traffic-metrics.ts";

function labels(workload: string): string[] {
  return TRAFFIC_LABELS.map((name) =>
    name === "source_workload" ? workload : name === "response_flags" ? "-" : "unknown",
  );
}

function relay(bytesSent = 0, bytesReceived = 0): { -readonly [K in keyof Relay]: Relay[K] } {
  return { bytesSent, bytesReceived, firstByteAt: 0, lastActivityAt: 0, stop: () => {} };
}

/** `workload flags: opened closed failed received sent`. */
function show({ series }: TrafficSample): readonly string[] {
  return series.map(
    (one) =>
      `${one.labels[1]} ${one.labels[21]}: ${one.opened} ${one.closed} ${one.failed} ${one.receivedBytes} ${one.sentBytes}`,
  );
}

test("labels are those of the original, in its order", () => {
  assert.equal(TRAFFIC_LABELS.length, 27);
  assert.equal(TRAFFIC_LABELS[21], "response_flags");
});

test("connections of one label set are one series", () => {
  const traffic = new TrafficMetrics();
  const first = traffic.opened(labels("a"));
  traffic.opened(labels("a"));
  traffic.opened(labels("b"));
  traffic.closed(first, "-");
  assert.deepEqual(show(traffic.collect()), ["a -: 2 1 0 0 0", "b -: 1 0 0 0 0"]);
});

test("a failed connection closes under its flag and keeps its bytes where it opened", () => {
  const traffic = new TrafficMetrics();
  const connection = traffic.opened(labels("a"));
  connection.relay = relay(3, 4);
  traffic.closed(connection, "CONNECT");
  assert.deepEqual(show(traffic.collect()), ["a -: 1 0 0 3 4", "a CONNECT: 0 1 1 0 0"]);
});

test("what a relay says after its connection was closed does not count", () => {
  const traffic = new TrafficMetrics();
  const connection = traffic.opened(labels("a"));
  const bytes = relay(3, 4);
  connection.relay = bytes;
  traffic.closed(connection, "-");
  traffic.collect();
  bytes.bytesSent = 1_000;
  assert.deepEqual(show(traffic.collect()), []);
});

test("a sample has only what changed since the last one", () => {
  const traffic = new TrafficMetrics();
  const idle = traffic.opened(labels("idle"));
  idle.relay = relay(1, 1);
  const busy = traffic.opened(labels("busy"));
  const bytes = relay(10, 20);
  busy.relay = bytes;
  traffic.collect();
  assert.deepEqual(show(traffic.collect()), []);
  bytes.bytesSent = 15;
  assert.deepEqual(show(traffic.collect()), ["busy -: 0 0 0 5 0"]);
  bytes.bytesReceived = 21;
  traffic.closed(busy, "-");
  assert.deepEqual(show(traffic.collect()), ["busy -: 0 1 0 0 1"]);
  assert.deepEqual(show(traffic.collect()), []);
});

test("samples add up to the truth however often they are taken", () => {
  const traffic = new TrafficMetrics();
  const sums = { opened: 0, closed: 0, receivedBytes: 0 };
  const live: {
    connection: ReturnType<TrafficMetrics["opened"]>;
    bytes: ReturnType<typeof relay>;
  }[] = [];
  let moved = 0;
  for (let step = 0; step < 200; step++) {
    const connection = traffic.opened(labels(`w${step % 3}`));
    const bytes = relay();
    connection.relay = bytes;
    live.push({ connection, bytes });
    for (const one of live) {
      one.bytes.bytesSent += step;
      moved += step;
    }
    if (step % 2 === 0) {
      const [done] = live.splice(step % live.length, 1);
      if (done !== undefined) traffic.closed(done.connection, "-");
    }
    if (step % 7 !== 0 && step !== 199) continue;
    for (const one of traffic.collect().series) {
      sums.opened += one.opened;
      sums.closed += one.closed;
      sums.receivedBytes += one.receivedBytes;
    }
  }
  assert.deepEqual(sums, { opened: 200, closed: 100, receivedBytes: moved });
});

test("a sample crosses threads as it is", () => {
  const traffic = new TrafficMetrics();
  traffic.opened(labels("a"));
  traffic.socketOpened("source");
  const sample = traffic.collect();
  assert.deepEqual(structuredClone(sample), sample);
});

test("a socket that came and went is a change of nothing, which is still a sample", () => {
  const traffic = new TrafficMetrics();
  traffic.socketOpened("destination");
  traffic.socketClosed("destination");
  assert.deepEqual(traffic.collect().socketsOpen, [{ reporter: "destination", change: 0 }]);
  assert.deepEqual(traffic.collect().socketsOpen, []);
});
