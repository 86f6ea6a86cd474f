import assert from "node:assert/strict";
import { test } from "node:test";
import { ResidentMemory } from "../../src/runtime/resident-memory.ts";
import { FakeClock } from "../support/fake-clock.ts";

const MB = 1024 * 1024;

class Process {
  readonly clock: FakeClock = new FakeClock();
  cpuMs = 0;
  programBytes = 0;
  releases = 0;

  constructor() {
    new ResidentMemory({
      clock: this.clock,
      cpuMs: () => this.cpuMs,
      programBytes: () => this.programBytes,
      release: () => {
        this.releases++;
        this.programBytes = 0;
      },
    });
  }

  /** From one look to the next: what it works, and which program pages it touches. */
  async live(cpuMs: number, touchedMb: number): Promise<void> {
    this.cpuMs += cpuMs;
    this.programBytes += touchedMb * MB;
    await this.clock.advance(5000);
  }
}

test("what a burst leaves is released at the first two looks at which it is over", async () => {
  const process = new Process();
  await process.live(4000, 30);
  assert.equal(process.releases, 0);
  await process.live(50, 0);
  assert.equal(process.releases, 1);
  await process.live(50, 25);
  assert.equal(process.releases, 2);
});

/** A process that was found to need 12 MB. */
async function settled(): Promise<Process> {
  const process = new Process();
  await process.live(50, 30);
  for (let look = 0; look < 2; look++) await process.live(50, 12);
  assert.equal(process.releases, 2);
  return process;
}

test("what a quiet process touches again is left to it", async () => {
  const process = await settled();
  for (let look = 0; look < 100; look++) await process.live(50, 0);
  assert.equal(process.releases, 2);
});

test("what it touches now and then is released", async () => {
  const process = await settled();
  await process.live(50, 3);
  assert.equal(process.releases, 2);
  await process.live(50, 1);
  assert.equal(process.releases, 3);
});

test("a second burst is followed by releases, whatever was needed before it", async () => {
  const process = await settled();
  await process.live(4000, 1);
  await process.live(50, 0);
  assert.equal(process.releases, 3);
});

test("a burst right after a release does not count as needed", async () => {
  const process = new Process();
  await process.live(50, 30);
  await process.live(50, 30);
  await process.live(4000, 30);
  await process.live(50, 0);
  assert.equal(process.releases, 3);
});

test("what somebody else released is not needed", async () => {
  const process = await settled();
  process.programBytes = 6 * MB;
  await process.live(50, 0);
  await process.live(50, 3);
  assert.equal(process.releases, 2);
  await process.live(50, 1);
  assert.equal(process.releases, 3);
});
