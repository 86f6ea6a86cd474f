import assert from "node:assert/strict";
import { test } from "node:test";
import { Calls } from "../../src/dataplane/calls.ts";

/** Asks that many questions. @returns their numbers and answers. */
function ask(calls: Calls<string>, count: number): { sent: number[]; answers: Promise<string>[] } {
  const sent: number[] = [];
  const answers = Array.from({ length: count }, () => calls.ask((call) => sent.push(call)));
  return { sent, answers };
}

test("answers reach whoever asked, in whatever order they come", async () => {
  const calls = new Calls<string>();
  const { sent, answers } = ask(calls, 3);
  assert.equal(new Set(sent).size, 3);
  for (const call of sent.toReversed()) calls.answer(call, `answer to ${call}`);
  assert.deepEqual(
    await Promise.all(answers),
    sent.map((call) => `answer to ${call}`),
  );
});

test("an answer may come before the question is fully sent", async () => {
  const calls = new Calls<string>();
  assert.equal(await calls.ask((call) => calls.answer(call, "at once")), "at once");
});

test("one call fails without the others", async () => {
  const calls = new Calls<string>();
  const { sent, answers } = ask(calls, 2);
  const [first, second] = sent as [number, number];
  calls.fail(first, new Error("taken"));
  calls.answer(second, "fine");
  await assert.rejects(answers[0] as Promise<string>, { message: "taken" });
  assert.equal(await answers[1], "fine");
});

test("what is said about a call twice, or about none, is passed over", async () => {
  const calls = new Calls<string>();
  const { sent, answers } = ask(calls, 1);
  const [call] = sent as [number];
  calls.answer(call + 1, "nobody asked");
  calls.answer(call, "first");
  calls.answer(call, "second");
  calls.fail(call, new Error("late"));
  assert.equal(await answers[0], "first");
});

test("when the other side is gone, open calls fail and later ones at once, unsent", async () => {
  const calls = new Calls<string>();
  const { sent, answers } = ask(calls, 2);
  calls.answer(sent[0] as number, "just in time");
  calls.failAll(new Error("gone"));
  assert.equal(await answers[0], "just in time");
  await assert.rejects(answers[1] as Promise<string>, { message: "gone" });
  await assert.rejects(
    calls.ask(() => assert.fail("sent to nobody")),
    { message: "gone" },
  );
});
