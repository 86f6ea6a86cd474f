import assert from "node:assert/strict";
import { test } from "node:test";
import { counted } from "../../src/runtime/counted.ts";

test("one thing is told as one, none and several as several", () => {
  assert.deepEqual(
    [0, 1, 2].map((count) => counted(count, "pod")),
    ["0 pods", "1 pod", "2 pods"],
  );
  assert.deepEqual(
    [0, 1, 2].map((count) => counted(count, "policy", "policies")),
    ["0 policies", "1 policy", "2 policies"],
  );
});
