import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type Endpoint, EndpointSet } from "../../src/state/endpoint-set.ts";

const endpoint = fc.record({
  workloadUid: fc.constantFrom("a", "b", "c", "d", "e"),
  ports: fc.constant(new Map([[80, 8080]])),
  status: fc.constant("Healthy" as const),
  capacity: fc.constantFrom(0, 1, 2),
});
const step = fc.oneof(
  endpoint.map((one) => ({ kind: "set", endpoint: one }) as const),
  endpoint.map(({ workloadUid }) => ({ kind: "delete", uid: workloadUid }) as const),
);

test("a set holds what a map by uid would hold, and every number below its size is one of them", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const set = new EndpointSet();
      const map = new Map<string, Endpoint>();
      for (const one of steps) {
        if (one.kind === "set") {
          set.set(one.endpoint);
          map.set(one.endpoint.workloadUid, one.endpoint);
        } else {
          set.delete(one.uid);
          map.delete(one.uid);
        }
      }
      assert.equal(set.size, map.size);
      assert.deepEqual(new Set(set.keys()), new Set(map.keys()));
      assert.deepEqual(new Set(set.values()), new Set(map.values()));
      const numbered = Array.from({ length: set.size }, (_, i) => set.at(i));
      assert.deepEqual(new Set(numbered), new Set(map.values()));
      assert.equal(set.at(set.size), undefined);
      for (const uid of ["a", "b", "c", "d", "e"]) {
        assert.equal(set.has(uid), map.has(uid));
        assert.equal(set.get(uid), map.get(uid));
      }
      assert.equal(
        set.isEven,
        [...map.values()].every(({ capacity }) => capacity === 1),
      );
    }),
  );
});
