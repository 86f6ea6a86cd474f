import assert from "node:assert/strict";
import { test } from "node:test";
import { QuietMemory } from "../../src/runtime/quiet-memory.ts";
import { FakeClock } from "../support/fake-clock.ts";

const MB = 1024 * 1024;

class Thread {
  readonly clock: FakeClock = new FakeClock();
  cpuMs = 0;
  heapBytes = 10 * MB;
  /** What a collection leaves. */
  liveBytes = 8 * MB;
  collections = 0;

  constructor() {
    new QuietMemory({
      clock: this.clock,
      cpuMs: () => this.cpuMs,
      heapBytes: () => this.heapBytes,
      collect: () => {
        this.collections++;
        this.heapBytes = this.liveBytes;
      },
    });
  }

  async work(cpuMs: number, heapBytes: number): Promise<void> {
    this.cpuMs += cpuMs;
    this.heapBytes = heapBytes;
    await this.clock.advance(5000);
  }
}

test("what a burst left is collected once, when the thread has become quiet", async () => {
  const thread = new Thread();
  await thread.work(50, 10 * MB);
  assert.equal(thread.collections, 1);
  await thread.work(5000, 60 * MB);
  assert.equal(thread.collections, 1);
  await thread.work(50, 60 * MB);
  await thread.work(50, thread.heapBytes);
  assert.deepEqual([thread.collections, thread.heapBytes], [2, 8 * MB]);
});

test("a heap that is large and stays as it is, is left alone", async () => {
  const thread = new Thread();
  thread.liveBytes = 50 * MB;
  for (let i = 0; i < 5; i++) await thread.work(50, 52 * MB);
  assert.equal(thread.collections, 1);
});

test("growth counts from what is left after the heap shrank by itself", async () => {
  const thread = new Thread();
  thread.liveBytes = 50 * MB;
  await thread.work(50, 60 * MB);
  await thread.work(50, 20 * MB);
  await thread.work(50, 25 * MB);
  assert.equal(thread.collections, 2);
});
