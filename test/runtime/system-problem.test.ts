import assert from "node:assert/strict";
import { test } from "node:test";
import { systemProblem } from "../../src/runtime/system-problem.ts";

const CASES: readonly (readonly [thrown: unknown, says: string])[] = [
  [
    Object.assign(new Error("EACCES: permission denied, bind x"), { code: "EACCES" }),
    "permission denied, run as root or as another user who may (EACCES)",
  ],
  [Object.assign(new Error("EMFILE: too many"), { code: "EMFILE" }), "EMFILE: too many"],
  [new Error("mine"), "mine"],
  ["mine", "mine"],
  [undefined, "undefined"],
];

for (const [thrown, says] of CASES) {
  test(`${thrown} is told as: ${says}`, () => assert.equal(systemProblem(thrown), says));
}
