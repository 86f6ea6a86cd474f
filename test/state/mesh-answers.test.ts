import assert from "node:assert/strict";
import { test } from "node:test";
import { MeshAnswers } from "../../src/state/mesh-answers.ts";
import { MeshMemory } from "../../src/state/mesh-memory.ts";

test("an answer is recalled until the mesh changes", () => {
  const memory = new MeshMemory();
  const answers = new MeshAnswers<string, { value: number }>(memory);
  assert.equal(answers.recall("a"), undefined);
  answers.keep("a", { value: 1 });
  assert.deepEqual(answers.recall("a"), { value: 1 });
  memory.write(() => {});
  assert.equal(answers.recall("a"), undefined);
  answers.keep("a", { value: 2 });
  assert.deepEqual(answers.recall("a"), { value: 2 });
});

test("an answer that a change ran into is not kept", () => {
  const memory = new MeshMemory();
  const answers = new MeshAnswers<string, { value: number }>(memory);
  assert.equal(answers.recall("a"), undefined);
  memory.write(() => {});
  answers.keep("a", { value: 1 });
  assert.equal(answers.recall("a"), undefined);
});

test("nothing is kept while a change is under way", () => {
  const memory = new MeshMemory();
  const answers = new MeshAnswers<string, { value: number }>(memory);
  memory.write(() => {
    assert.equal(answers.recall("a"), undefined);
    answers.keep("a", { value: 1 });
  });
  assert.equal(answers.recall("a"), undefined);
});

test("a thousand answers are kept, and then begun anew", () => {
  const answers = new MeshAnswers<number, { value: number }>(new MeshMemory());
  answers.recall(0);
  for (let i = 0; i < 1024; i++) answers.keep(i, { value: i });
  assert.deepEqual(answers.recall(0), { value: 0 });
  answers.keep(1024, { value: 1024 });
  assert.equal(answers.recall(0), undefined);
  assert.deepEqual(answers.recall(1024), { value: 1024 });
});
