import assert from "node:assert/strict";
import { test } from "node:test";
import { ThreadLogSink } from "../../src/dataplane/thread-log-sink.ts";
import { FakeClock } from "../support/fake-clock.ts";

function makeSink(): { clock: FakeClock; sent: string[]; sink: ThreadLogSink } {
  const clock = new FakeClock();
  const sent: string[] = [];
  return { clock, sent, sink: new ThreadLogSink(clock, (text) => sent.push(text)) };
}

test("lines of 50 ms go together, in order, and nothing goes without lines", async () => {
  const { clock, sent, sink } = makeSink();
  sink.write("a\n");
  await clock.advance(49);
  sink.write("b\n");
  assert.deepEqual(sent, []);
  await clock.advance(1);
  assert.deepEqual(sent, ["a\nb\n"]);
  await clock.advance(100);
  sink.write("c\n");
  await clock.advance(50);
  assert.deepEqual(sent, ["a\nb\n", "c\n"]);
});

test("a flood goes at once and leaves no timer behind", async () => {
  const { clock, sent, sink } = makeSink();
  const line = `${"x".repeat(999)}\n`;
  for (let i = 0; i < 66; i++) sink.write(line);
  assert.deepEqual(
    sent.map((text) => text.length),
    [66_000],
  );
  assert.equal(clock.pendingCount, 0);
  sink.write("next\n");
  await clock.advance(50);
  assert.equal(sent[1], "next\n");
});

test("a flush sends what is there, once", async () => {
  const { clock, sent, sink } = makeSink();
  sink.flush();
  sink.write("last words\n");
  sink.flush();
  sink.flush();
  await clock.advance(100);
  assert.deepEqual(sent, ["last words\n"]);
});
