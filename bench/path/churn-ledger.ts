/**
 * What probes saw, held against what policy said at that moment. Pure: times are milliseconds of the
 * monotonic clock, given by the callers.
 */

/** One round trip that a probe tried. */
export interface Attempt {
  readonly begunAt: number;
  readonly endedAt: number;
  /** `ok`, or how it failed: see `load/probe.c`. */
  readonly outcome: string;
}

/** A verdict and the time in which either it or the one before may show. */
interface Verdict {
  readonly isAllowed: boolean;
  readonly changedAt: number;
  /** Infinite while the change is on its way. */
  settledAt: number;
}

export interface Judged {
  readonly allowed: number;
  readonly denied: number;
  /** Those that touch a change: either answer is right. */
  readonly undecided: number;
  readonly wrong: readonly Attempt[];
}

/** The pair of pods that one probe goes between. */
export class PairLedger {
  readonly name: string;
  readonly #verdicts: Verdict[];
  #waiting: Attempt[] = [];
  #judged: Judged = { allowed: 0, denied: 0, undecided: 0, wrong: [] };

  constructor(name: string, isAllowed: boolean) {
    this.name = name;
    this.#verdicts = [{ isAllowed, changedAt: -Infinity, settledAt: -Infinity }];
  }

  note(attempt: Attempt): void {
    this.#waiting.push(attempt);
  }

  /** @returns to be called with the time from which only the new verdict is right. */
  change(isAllowed: boolean, changedAt: number): (settledAt: number) => void {
    const verdict: Verdict = { isAllowed, changedAt, settledAt: Number.POSITIVE_INFINITY };
    this.#verdicts.push(verdict);
    return (settledAt) => {
      verdict.settledAt = settledAt;
    };
  }

  /** Judges what was noted since the last time; not while a change is on its way. */
  judge(): Judged {
    const { wrong, ...counts } = this.#judged;
    const found = [...wrong];
    for (const attempt of this.#waiting) {
      const verdict = this.#verdictOf(attempt);
      if (attempt.outcome === "wrong") found.push(attempt);
      else if (verdict === undefined) counts.undecided++;
      else if (verdict !== (attempt.outcome === "ok")) found.push(attempt);
      else if (verdict) counts.allowed++;
      else counts.denied++;
    }
    this.#waiting = [];
    this.#judged = { ...counts, wrong: found };
    return this.#judged;
  }

  #verdictOf({ begunAt, endedAt }: Attempt): boolean | undefined {
    const verdict = this.#verdicts.findLast(({ changedAt }) => changedAt <= endedAt);
    return verdict === undefined || begunAt < verdict.settledAt ? undefined : verdict.isAllowed;
  }
}
