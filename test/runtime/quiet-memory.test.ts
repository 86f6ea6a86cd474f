import assert from "node:assert/strict";
import { test } from "node:test";
import { QuietMemory } from "../../src/runtime/quiet-memory.ts";
import { FakeClock } from "../support/fake-clock.ts";

const MB = 1024 * 1024;

class Thread {
  readonly clock: FakeClock = new FakeClock();
  cpuMs = 0;
  allocatedBytes = 0;
  /** What each collection moves. */
  collectionBytes = 0;
  collections = 0;

  constructor() {
    new QuietMemory({
      clock: this.clock,
      cpuMs: () => this.cpuMs,
      allocatedBytes: () => this.allocatedBytes,
      collect: () => {
        this.collections++;
        this.allocatedBytes += this.collectionBytes;
      },
    });
  }

  async work(cpuMs: number, allocatedBytes: number): Promise<void> {
    this.cpuMs += cpuMs;
    this.allocatedBytes += allocatedBytes;
    await this.clock.advance(5000);
  }
}

test("what a burst left is collected once, when the thread has rested", async () => {
  const thread = new Thread();
  await thread.work(5000, 60 * MB);
  for (let look = 0; look < 4; look++) await thread.work(50, 0);
  assert.equal(thread.collections, 0);
  await thread.work(50, 0);
  assert.equal(thread.collections, 1);
  for (let look = 0; look < 60; look++) await thread.work(50, 4096);
  assert.equal(thread.collections, 1);
});

test("what a collection itself allocates is no work", async () => {
  const thread = new Thread();
  thread.collectionBytes = 8 * MB;
  await thread.work(5000, 60 * MB);
  for (let look = 0; look < 60; look++) await thread.work(50, 4096);
  assert.equal(thread.collections, 1);
});

test("pauses between bursts are no rest", async () => {
  const thread = new Thread();
  for (let burst = 0; burst < 20; burst++) {
    await thread.work(400, 10 * MB);
    for (let look = 0; look < 4; look++) await thread.work(5, 4096);
  }
  assert.equal(thread.collections, 0);
});

test("moving bytes without making anything is no rest", async () => {
  const thread = new Thread();
  await thread.work(5000, 60 * MB);
  for (let look = 0; look < 20; look++) await thread.work(2000, 4096);
  assert.equal(thread.collections, 0);
});

test("what ends just after a collection is collected, too", async () => {
  const thread = new Thread();
  await thread.work(50, 10 * MB);
  for (let look = 0; look < 5; look++) await thread.work(50, 0);
  assert.equal(thread.collections, 1);
  await thread.work(500, 5 * MB);
  for (let look = 0; look < 5; look++) await thread.work(50, 0);
  assert.equal(thread.collections, 2);
});

test("a thread that always has a little to do is collected more and more rarely", async () => {
  const thread = new Thread();
  const collectedAt: number[] = [];
  for (let look = 1; look <= 230; look++) {
    const before = thread.collections;
    await thread.work(50, 5 * MB);
    if (thread.collections > before) collectedAt.push(look);
  }
  assert.deepEqual(collectedAt, [6, 18, 42, 90, 150, 210]);
});

test("a burst ends the long pause", async () => {
  const thread = new Thread();
  for (let look = 1; look <= 90; look++) await thread.work(50, 5 * MB);
  assert.equal(thread.collections, 4);
  await thread.work(1000, 20 * MB);
  for (let look = 1; look <= 6; look++) await thread.work(50, 5 * MB);
  assert.equal(thread.collections, 5);
});

test("what light work of minutes left is collected when it ends", async () => {
  const thread = new Thread();
  for (let look = 1; look <= 44; look++) await thread.work(50, 5 * MB);
  assert.equal(thread.collections, 3);
  for (let look = 0; look < 5; look++) await thread.work(1, 4096);
  assert.equal(thread.collections, 4);
});

test("a quiet thread that does next to nothing is left alone", async () => {
  const thread = new Thread();
  for (let look = 1; look <= 64; look++) await thread.work(50, MB);
  assert.equal(thread.collections, 0);
});
