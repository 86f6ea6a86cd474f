import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { framed, MessageStream } from "../../src/dns/message-stream.ts";

test("messages come out whole however they were cut", () => {
  const messages = fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 6 });
  fc.assert(
    fc.property(messages, fc.array(fc.integer({ min: 1, max: 40 })), (sent, cuts) => {
      const stream = new MessageStream();
      const received: Buffer[] = [];
      let rest = Buffer.concat(sent.map(framed));
      for (const cut of [...cuts, rest.length]) {
        received.push(...stream.take(rest.subarray(0, cut)).map((one) => Buffer.from(one)));
        rest = rest.subarray(cut);
      }
      assert.deepEqual(
        received,
        sent.map((one) => Buffer.from(one)),
      );
    }),
  );
});

test("the longest message is one", () => {
  const message = Buffer.alloc(65_535, 7);
  const [received] = new MessageStream().take(framed(message));
  assert.deepEqual(received, message);
});
