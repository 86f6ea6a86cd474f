import assert from "node:assert/strict";
import { test } from "node:test";
import { Readiness } from "../../src/runtime/readiness.ts";

function makeReadiness(): {
  readiness: Readiness;
  at(ms: number): void;
  told: (readonly [task: string, afterMs: number, pending: number])[];
} {
  let now = 0;
  const told: (readonly [string, number, number])[] = [];
  const readiness = new Readiness(
    () => now,
    (...change) => told.push(change),
  );
  return {
    readiness,
    told,
    at(ms) {
      now = ms;
    },
  };
}

test("what is awaited is pending, by name and since when, until it is complete", () => {
  const { readiness, at } = makeReadiness();
  assert.deepEqual(readiness.pending(), []);
  readiness.await("state manager");
  at(30);
  readiness.await("proxy");
  at(50);
  assert.deepEqual(readiness.pending(), [
    { task: "proxy", forMs: 20 },
    { task: "state manager", forMs: 50 },
  ]);
  readiness.complete("proxy");
  assert.deepEqual(readiness.pending(), [{ task: "state manager", forMs: 50 }]);
  readiness.complete("state manager");
  assert.deepEqual(readiness.pending(), []);
});

test("each completion is told once, with its time and what is left", () => {
  const { readiness, told, at } = makeReadiness();
  at(10);
  readiness.await("proxy");
  at(20);
  readiness.await("state manager");
  readiness.await("proxy");
  at(50);
  readiness.complete("proxy");
  readiness.complete("proxy");
  at(70);
  readiness.complete("state manager");
  assert.deepEqual(told, [
    ["proxy", 40, 1],
    ["state manager", 50, 0],
  ]);
});

test("completing what nobody awaits says nothing", () => {
  const { readiness, told } = makeReadiness();
  readiness.complete("proxy");
  assert.deepEqual([told, readiness.pending()], [[], []]);
});

test("a task may become pending again, its time counted anew", () => {
  const { readiness, told, at } = makeReadiness();
  readiness.await("cni");
  at(5);
  readiness.complete("cni");
  at(100);
  readiness.await("cni");
  assert.deepEqual(readiness.pending(), [{ task: "cni", forMs: 0 }]);
  at(101);
  readiness.complete("cni");
  assert.deepEqual(told, [
    ["cni", 5, 0],
    ["cni", 1, 0],
  ]);
});
