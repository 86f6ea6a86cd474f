import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { type AddressInfo, connect, createServer } from "node:net";
import { afterEach, beforeEach, describe, test } from "node:test";
import { setTimeout as delay, setImmediate as immediate } from "node:timers/promises";
import { MessageChannel, Worker } from "node:worker_threads";
import { ReactorLab } from "../support/reactor-lab.ts";

let lab: ReactorLab;

beforeEach(() => {
  lab = new ReactorLab();
});

afterEach(() => lab.close());

/** What a thread waits for beside its sockets; each settles when it came. */
const OTHERS: Readonly<Record<string, () => Promise<unknown>>> = {
  "a timer": () => delay(2),
  "an immediate": () => immediate(),
  "the next tick": () => new Promise((resolve) => process.nextTick(resolve)),
  "the pool of threads": () => readFile(import.meta.filename),
  "a message": async () => {
    const { port1, port2 } = new MessageChannel();
    const message = once(port1, "message");
    port2.postMessage("hello");
    await message;
    port1.close();
  },
  "a message of another thread": async () => {
    const code = "require('node:worker_threads').parentPort.postMessage('hello')";
    await once(new Worker(code, { eval: true }), "message");
  },
  "a socket of Node": async () => {
    const server = createServer((socket) => socket.end("hello"));
    await once(server.listen(0, "127.0.0.1"), "listening");
    const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
    await once(socket.resume(), "close");
    server.close();
  },
};

describe("the loop of a reactor's thread", () => {
  for (const [name, begin] of Object.entries(OTHERS)) {
    test(`hears of ${name}, begun in a turn that nothing follows`, async () => {
      const { near, far } = await lab.pair(lab.listen());
      lab.allow(far);
      const begun = new Promise((resolve) => {
        lab.during = () => resolve(begin());
      });
      lab.write(near, "x");
      await begun;
    });

    test(`hears of ${name} while turns follow each other`, async () => {
      const stop = await pingPong();
      await begin();
      await stop();
    });
  }

  test("gives what keeps no thread awake its time between turns", async () => {
    const stop = await pingPong();
    const before = lab.turns.length;
    await immediate(undefined, { ref: false });
    const { length } = lab.turns;
    assert(length - before < 500, `after ${length - before} turns`);
    await stop();
  });

  test("sleeps while nothing happens", async () => {
    const { far } = await lab.pair(lab.listen());
    lab.allow(far);
    // Other threads of this process may work for a while; a loop that spins never rests.
    let usedUs = Number.POSITIVE_INFINITY;
    for (let i = 0; i < 50 && usedUs >= 50_000; i++) {
      const before = process.cpuUsage();
      await delay(100);
      const { user, system } = process.cpuUsage(before);
      usedUs = user + system;
    }
    assert(usedUs < 50_000, `${usedUs} µs of 100 ms`);
  });
});

test("a thread ends when its reactor is closed and nothing else is left", async () => {
  const code = `
    import(${JSON.stringify(new URL("../support/reactor-lab.ts", import.meta.url).href)}).then(
      ({ ReactorLab }) => {
        const lab = new ReactorLab();
        lab.listen();
        setTimeout(() => lab.close(), 5);
      },
    );`;
  const [status] = await once(new Worker(code, { eval: true }), "exit");
  assert.equal(status, 0);
});

/** Sends a byte to and fro without end. @returns what stops it. */
async function pingPong(): Promise<() => Promise<void>> {
  const { near, far } = await lab.pair(lab.listen());
  let onStopped: (() => void) | undefined;
  lab.during = (event) => {
    if (event.kind !== "DATA") return;
    if (onStopped === undefined) {
      lab.queue("WRITE", event.id === near ? near : far, event.a, event.b);
    } else onStopped();
  };
  lab.allow(near);
  lab.allow(far);
  lab.write(near, "x");
  return () =>
    new Promise((resolve) => {
      onStopped = resolve;
    });
}
