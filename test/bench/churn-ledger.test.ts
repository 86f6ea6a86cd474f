import assert from "node:assert/strict";
import { test } from "node:test";
import { type Attempt, PairLedger } from "../../bench/path/churn-ledger.ts";

function judged(
  isAllowed: boolean,
  attempts: readonly Attempt[],
  change?: readonly number[],
): typeof NONE {
  const ledger = new PairLedger("a to b", isAllowed);
  const [changedAt, settledAt] = change ?? [];
  if (changedAt !== undefined) {
    const settle = ledger.change(!isAllowed, changedAt);
    if (settledAt !== undefined) settle(settledAt);
  }
  for (const attempt of attempts) ledger.note(attempt);
  const { wrong, ...counts } = ledger.judge();
  return { ...counts, wrong: wrong.length };
}

const NONE = { allowed: 0, denied: 0, undecided: 0, wrong: 0 };

interface Case {
  readonly what: string;
  readonly isAllowed?: boolean;
  readonly times: readonly [number, number];
  readonly outcome: string;
  readonly change?: readonly number[];
  readonly expected: Partial<typeof NONE>;
}

const CASES: readonly Case[] = [
  { what: "allowed and served", times: [5, 6], outcome: "ok", expected: { allowed: 1 } },
  { what: "allowed and reset", times: [5, 6], outcome: "reset", expected: { wrong: 1 } },
  {
    what: "denied and closed",
    isAllowed: false,
    times: [5, 6],
    outcome: "closed",
    expected: { denied: 1 },
  },
  {
    what: "denied and served",
    isAllowed: false,
    times: [5, 6],
    outcome: "ok",
    expected: { wrong: 1 },
  },
  {
    what: "over before a change",
    times: [5, 6],
    outcome: "ok",
    change: [7, 9],
    expected: { allowed: 1 },
  },
  {
    what: "still on its way when a change begins",
    times: [5, 8],
    outcome: "reset",
    change: [7, 9],
    expected: { undecided: 1 },
  },
  {
    what: "begun before a change has settled",
    times: [8, 12],
    outcome: "ok",
    change: [7, 9],
    expected: { undecided: 1 },
  },
  {
    what: "begun while a change never arrives",
    times: [80, 81],
    outcome: "ok",
    change: [7],
    expected: { undecided: 1 },
  },
  {
    what: "served after a change that denies",
    times: [9, 10],
    outcome: "ok",
    change: [7, 9],
    expected: { wrong: 1 },
  },
  {
    what: "answered with a wrong byte during a change",
    times: [8, 9],
    outcome: "wrong",
    change: [7, 9],
    expected: { wrong: 1 },
  },
];

for (const { what, isAllowed = true, times, outcome, change, expected } of CASES) {
  test(`an attempt that is ${what} is judged so`, () => {
    const [begunAt, endedAt] = times;
    const attempt = { begunAt, endedAt, outcome };
    assert.deepEqual(judged(isAllowed, [attempt], change), { ...NONE, ...expected });
  });
}

test("what was judged once is neither judged again nor forgotten", () => {
  const ledger = new PairLedger("a to b", true);
  ledger.note({ begunAt: 1, endedAt: 2, outcome: "reset" });
  ledger.judge();
  ledger.note({ begunAt: 3, endedAt: 4, outcome: "ok" });
  const { allowed, wrong } = ledger.judge();
  assert.deepEqual([allowed, wrong.length], [1, 1]);
});
