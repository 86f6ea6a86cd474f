import assert from "node:assert/strict";
import { test } from "node:test";
import { QuietMemory } from "../../src/runtime/quiet-memory.ts";
import { FakeClock } from "../support/fake-clock.ts";

const MB = 1024 * 1024;

class Thread {
  readonly clock: FakeClock = new FakeClock();
  cpuMs = 0;
  allocatedBytes = 0;
  collections = 0;

  constructor() {
    new QuietMemory({
      clock: this.clock,
      cpuMs: () => this.cpuMs,
      allocatedBytes: () => this.allocatedBytes,
      collect: () => {
        this.collections++;
      },
    });
  }

  async work(cpuMs: number, allocatedBytes: number): Promise<void> {
    this.cpuMs += cpuMs;
    this.allocatedBytes += allocatedBytes;
    await this.clock.advance(5000);
  }
}

test("what a burst left is collected once, when the thread has become quiet", async () => {
  const thread = new Thread();
  await thread.work(5000, 60 * MB);
  assert.equal(thread.collections, 0);
  await thread.work(50, 0);
  await thread.work(50, 0);
  assert.equal(thread.collections, 1);
});

test("what ends after a quiet time is collected, too", async () => {
  const thread = new Thread();
  await thread.work(50, 10 * MB);
  assert.equal(thread.collections, 1);
  await thread.work(500, 5 * MB);
  await thread.work(50, 0);
  assert.equal(thread.collections, 2);
});

test("what ends just after a collection is collected once more, then not again", async () => {
  const thread = new Thread();
  await thread.work(50, 10 * MB);
  await thread.work(50, MB);
  assert.equal(thread.collections, 2);
  await thread.work(50, MB);
  assert.equal(thread.collections, 2);
});

test("a quiet thread is collected as rarely as it allocates", async () => {
  const thread = new Thread();
  for (let i = 0; i < 20; i++) await thread.work(50, MB);
  assert.equal(thread.collections, 8);
});
