import assert from "node:assert/strict";
import { before } from "node:test";
import { setImmediate as nextLoop } from "node:timers/promises";
import fc from "fast-check";
import type { WorkloadCertificate } from "../../src/mesh/workload-certificate.ts";
import { makeTlsContext, type TlsContext } from "../../src/net/tls-context.ts";
import { LAB_OPTIONS, ReactorLab, type SeenEvent } from "../support/reactor-lab.ts";
import { testCa, testIdentity } from "../support/test-ca.ts";
import { fuzz, record } from "./fuzz.ts";

/** Turns of the event loop after which what is under way on loopback has been told. */
const SETTLE_LOOPS = 8;

/** Few and small, so that lists and queues fill up. */
const TIGHT = {
  ...LAB_OPTIONS,
  arenaBytes: 100_003,
  scratchBytes: 70_001,
  plainReadBytes: 67_235,
  cipherReadBytes: 50_000,
  eventsMax: 16,
  operationsMax: 32,
  connectionsMax: 24,
  queueBytesMax: 200_000,
  rekeyBytes: 10_000,
};

let certificate: WorkloadCertificate;
before(async () => {
  certificate = await (await testCa()).certificate(testIdentity("anyone"));
});

function makeContext(): TlsContext {
  return makeTlsContext({
    chainPem: certificate.chainPem.join("\n"),
    keyPem: certificate.privateKeyPem,
    rootsPem: certificate.rootsPem.join("\n"),
    tls12: true,
    groups: "X25519:P-256",
  });
}

/** Says what is wrong with an event, whatever led to it. */
function faultOf(lab: ReactorLab, event: SeenEvent): string | undefined {
  const { kind, id, a, b } = event;
  const isAlive = (() => {
    try {
      return lab.reactor.fdOf(id) >= 0;
    } catch {
      return false;
    }
  })();
  if (!isAlive && id <= 0) return `an event of ${id}`;
  if (kind === "DATA" && (a < 0 || b <= 0 || a + b > TIGHT.arenaBytes)) {
    return `DATA at ${a}, ${b} bytes`;
  }
  return kind === "ERROR" && event.text === "" && isAlive ? `ERROR ${a} without words` : undefined;
}

const int32 = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
const offset = fc.oneof(
  fc.nat(TIGHT.arenaBytes + TIGHT.scratchBytes),
  fc.constantFrom(-1, TIGHT.arenaBytes + TIGHT.scratchBytes - 1, 2 ** 31 - 1),
  int32,
);
const length = fc.oneof(fc.nat(5000), fc.nat(70_000), fc.constantFrom(-1, 2 ** 31 - 1), int32);
const operation = record({
  kind: fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom(1, 2, 5) },
    { weight: 2, arbitrary: fc.integer({ min: -1, max: 9 }) },
  ),
  /** One of the connections, or any number. */
  target: fc.oneof({ weight: 9, arbitrary: fc.nat(40) }, { weight: 1, arbitrary: int32 }),
  a: fc.oneof(offset, fc.nat(255)),
  b: length,
  credit: fc.oneof(fc.constant(0), fc.nat(200_000), int32),
});

fuzz(
  "any operations leave the reactor whole",
  fc.asyncProperty(
    fc.array(fc.array(operation, { maxLength: TIGHT.operationsMax }), { maxLength: 12 }),
    async (batches) => {
      const lab = new ReactorLab(TIGHT);
      const faults: string[] = [];
      try {
        const context = makeContext();
        const listener = lab.listen();
        const ids = [listener.id];
        lab.during = (event) => {
          const fault = faultOf(lab, event);
          if (fault !== undefined) faults.push(fault);
          if (event.kind === "ACCEPT") ids.push(event.a);
        };
        for (let i = 0; i < 4; i++) {
          const { near, far } = await lab.pair(listener);
          ids.push(near);
          if (i % 2 === 0) continue;
          lab.reactor.startTls(far, context, true);
          lab.reactor.startTls(near, context, false);
        }
        for (const [turn, batch] of batches.entries()) {
          for (const { kind, target, a, b, credit } of batch) {
            const id = ids[target % ids.length] ?? 0;
            lab.reactor.credit[id & 0xffff] = credit;
            lab.queue(kind, target > 40 || target < 0 ? target : id, a, b);
          }
          // Half of them outside of a turn, half at the end of one.
          if (turn % 2 === 0) lab.flush();
          if (ids.length < 20) ids.push(lab.connect(listener.port));
          await nextLoop();
        }
        assert.deepEqual(faults, []);
      } finally {
        lab.close();
      }
    },
  ),
);

const anything = fc.oneof(
  int32,
  fc.nat(40),
  fc.double(),
  fc.constantFrom(undefined, null, "1", true, false, Number.NaN, {}),
);
const call = record({
  method: fc.constantFrom(...(["fdOf", "startTls", "peerChain", "flush"] as const)),
  /** One of the connections, alive or not, or anything. */
  target: fc.oneof({ weight: 9, arbitrary: fc.nat(40) }, { weight: 1, arbitrary: fc.constant(-1) }),
  more: fc.array(anything, { maxLength: 3 }),
});

fuzz(
  "any calls are answered or refused",
  fc.asyncProperty(fc.array(call, { maxLength: 60 }), async (calls) => {
    const lab = new ReactorLab(TIGHT);
    try {
      const listener = lab.listen();
      const context = makeContext();
      const ids = [listener.id];
      for (let i = 0; i < 3; i++) {
        const { near, far } = await lab.pair(listener);
        ids.push(near, far);
      }
      const methods = lab.reactor as unknown as Record<string, (...args: unknown[]) => unknown>;
      for (const { method, target, more } of calls) {
        const rest = more.map((value) => (value === null ? context : value));
        const given = target === -1 ? rest : [ids[target % ids.length], ...rest];
        try {
          methods[method]?.(...given);
        } catch (error) {
          assert(error instanceof Error, String(error));
        }
        await nextLoop();
      }
      assert(lab.reactor.pending.subarray(1).every((bytes) => bytes === 0));
    } finally {
      lab.close();
    }
  }),
);

for (const role of ["server", "client"] as const) {
  fuzz(
    `any bytes at a ${role} that waits for a handshake end it`,
    fc.asyncProperty(
      fc.oneof(
        fc.uint8Array({ maxLength: 400 }),
        // The head of a record, so that more of it is believed.
        fc
          .tuple(fc.constantFrom(20, 21, 22, 23), fc.uint8Array({ minLength: 1, maxLength: 400 }))
          .map(([type, body]) =>
            Uint8Array.from([type, 3, 3, body.length >> 8, body.length & 255, ...body]),
          ),
      ),
      async (bytes) => {
        const lab = new ReactorLab(TIGHT);
        try {
          const { near, far } = await lab.pair(lab.listen());
          lab.reactor.startTls(far, makeContext(), role === "server");
          lab.write(near, bytes);
          lab.perform("END", near);
          const { kind } = await lab.next(far);
          assert(kind === "ERROR" || kind === "EOF", kind);
        } finally {
          lab.close();
        }
      },
    ),
  );
}

/** A byte on its way between the two, changed. */
const change = record({
  towards: fc.constantFrom("server" as const, "client" as const),
  at: fc.oneof(fc.nat(60), fc.nat(2500)),
  flip: fc.integer({ min: 1, max: 255 }),
});

fuzz(
  "a handshake between whose sides bytes are changed ends on both",
  fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 4 }), async (changes) => {
    const lab = new ReactorLab(TIGHT);
    try {
      const context = makeContext();
      const listener = lab.listen();
      const left = await lab.pair(listener);
      const right = await lab.pair(listener);
      const onward = new Map([
        [left.far, { to: right.near, towards: "server", passed: 0 }],
        [right.near, { to: left.far, towards: "client", passed: 0 }],
      ]);
      const ended = new Set<number>();
      let events = 0;
      lab.during = ({ kind, id, a, b }) => {
        events++;
        const link = onward.get(id);
        if (link === undefined) {
          if (kind === "ERROR" || kind === "EOF") ended.add(id);
          return;
        }
        if (kind === "DATA") {
          for (const { towards, at, flip } of changes) {
            const place = a + at - link.passed;
            if (towards !== link.towards || place < a || place >= a + b) continue;
            lab.reactor.arena[place] = (lab.reactor.arena[place] ?? 0) ^ flip;
          }
          link.passed += b;
          lab.queue("WRITE", link.to, a, b);
        }
        if (kind === "EOF" || kind === "ERROR") lab.queue("END", link.to);
      };
      lab.allow(left.far);
      lab.allow(right.near);
      lab.reactor.startTls(right.far, context, true);
      lab.reactor.startTls(left.near, context, false);
      await settle(() => events);
      // One side may wait for the rest of a record that was made longer.
      for (const id of onward.keys()) lab.perform("END", id);
      await settle(() => events);
      assert.deepEqual(ended, new Set([left.near, right.far]));
    } finally {
      lab.close();
    }
  }),
);

/** Until nothing more is told. */
async function settle(events: () => number): Promise<void> {
  for (let quiet = 0, before = events(); quiet < SETTLE_LOOPS; quiet++) {
    await nextLoop();
    if (events() !== before) quiet = 0;
    before = events();
  }
}
