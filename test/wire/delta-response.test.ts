import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { decodeDeltaResponse, deltaDiscoveryMethod } from "../../src/wire/delta-discovery.ts";
import { WireError } from "../../src/wire/wire-error.ts";
import { fuzz, lawful, mutated } from "../fuzz/fuzz.ts";
import { recordedScenarios } from "../support/istiod-recording.ts";

const recorded = recordedScenarios().flatMap(({ messages }) =>
  messages.flatMap((message) => (message.from === "server" ? [message.response] : [])),
);

test("a response is the same whether its resources are decoded one by one or all at once", () => {
  for (const response of recorded) {
    const decoded = decodeDeltaResponse(deltaDiscoveryMethod.responseSerialize(response));
    assert.equal(decoded.resources.length, response.resources.length);
    const again = { ...decoded, resources: [...decoded.resources] };
    // Bytes are views into the message.
    assert.deepEqual(structuredClone(again), structuredClone(response));
    assert.deepEqual([...decoded.resources], again.resources);
  }
});

fuzz(
  "a broken response is refused, at once or where it is broken",
  fc.property(
    mutated(fc.constantFrom(...recorded).map(deltaDiscoveryMethod.responseSerialize)),
    (bytes) => {
      lawful(
        () => [...decodeDeltaResponse(bytes).resources],
        (error) => error instanceof WireError,
      );
    },
  ),
);
