/**
 * Many connections at once with random sizes, pieces, pauses and ends, over all ways of a lab. Every
 * byte is compared at both ends, and what the daemons report of a connection with what its ends saw.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { fdCount } from "../proc.ts";
import { AccessLedger } from "./access-ledger.ts";
import { describeStuck, liveConnections } from "./stuck-dump.ts";
import { TortureCall } from "./torture-call.ts";
import { TORTURE_PATHS, type TortureLab } from "./torture-lab.ts";
import { SaidBytes } from "./torture-plan.ts";
import { TortureServers } from "./torture-servers.ts";

/** Looks without any movement after which a connection is stuck: half a minute, longer where all is slow. */
const STILL_LOOKS_MAX = 30;
const LOOK_MS = 1000;
/** Until daemons have said and let go of everything. */
const SETTLED_MS_MAX = 30_000;
const POLL_MS = 100;
/** Those that a daemon has for itself, to its control plane and to its authority, come and go. */
const DESCRIPTORS_SPARE = 4;
const NODES = ["node-a", "node-b"] as const;

export interface TortureOptions {
  readonly seed: number;
  /** Connections at once. */
  readonly concurrency: number;
  /** No more connections than that. */
  readonly countMax: number;
  /** None begins later than that. */
  readonly durationMs: number;
  /** Names of {@link TORTURE_PATHS}; default all. */
  readonly pathNames?: readonly string[];
}

export interface TortureResult {
  readonly count: number;
  /** Heard by either end. */
  readonly bytes: number;
  /** Empty when all is well. */
  readonly problems: readonly string[];
}

/** Once for each lab, through which nobody has called before. */
export class Torture {
  readonly #lab: TortureLab;
  readonly #options: TortureOptions;
  readonly #pathNames: readonly string[];
  readonly #ledger: AccessLedger;
  readonly #servers: TortureServers;
  readonly #said = new SaidBytes();
  readonly #calls: TortureCall[] = [];
  readonly #running = new Set<TortureCall>();
  readonly #problems: string[] = [];
  /** Of the first connection that was stuck. */
  #dump: Promise<string> | undefined;

  constructor(lab: TortureLab, options: TortureOptions) {
    this.#lab = lab;
    this.#options = options;
    this.#pathNames = options.pathNames ?? Object.keys(TORTURE_PATHS);
    this.#ledger = new AccessLedger(lab.lab);
    const hosts = this.#pathNames.flatMap((name) => TORTURE_PATHS[name]?.to ?? []);
    this.#servers = new TortureServers(lab.lab, new Set(hosts));
  }

  async run(): Promise<TortureResult> {
    const { concurrency, durationMs } = this.#options;
    const descriptors = this.#descriptorCounts();
    const endsAt = performance.now() + durationMs;
    const looking = setInterval(() => this.#look(), LOOK_MS);
    try {
      await Promise.all(Array.from({ length: concurrency }, () => this.#callAgain(endsAt)));
    } finally {
      clearInterval(looking);
      this.#servers.close();
    }
    for (const call of this.#calls) this.#complain(call, call.problems());
    if (this.#dump === undefined) {
      await this.#judgeReports();
      await this.#judgeRest(descriptors);
    } else {
      this.#problems.push(await this.#dump);
    }
    const bytes = this.#calls.reduce((sum, { heard }) => sum + heard.forth + heard.back, 0);
    return { count: this.#calls.length, bytes, problems: this.#problems };
  }

  async #callAgain(endsAt: number): Promise<void> {
    const { seed, countMax } = this.#options;
    const isOver = (): boolean =>
      this.#dump !== undefined || this.#calls.length >= countMax || performance.now() > endsAt;
    while (!isOver()) {
      const index = this.#calls.length;
      const options = { seed, index, pathNames: this.#pathNames, said: this.#said };
      const call = new TortureCall(this.#lab, options);
      this.#calls.push(call);
      this.#running.add(call);
      await call.play(this.#servers);
      this.#running.delete(call);
    }
  }

  #look(): void {
    for (const call of this.#running) {
      if (call.look() < STILL_LOOKS_MAX) continue;
      this.#dump ??= describeStuck(this.#lab, call);
      void this.#dump.then(() => call.giveUp());
    }
  }

  async #judgeReports(): Promise<void> {
    const wanted = this.#calls.filter(({ said }) => said.forth > 0);
    const entries = await eventually(
      () => wanted.map((call) => this.#ledger.entries(call.source)),
      (found) => found.every(({ length }) => length > 0),
    );
    for (const [i, call] of wanted.entries()) {
      const found = entries[i] ?? [];
      if (found.length !== 1) this.#complain(call, [`${found.length} lines in the access log`]);
      for (const { forth, back, error } of found) {
        const { heard, said, isClean } = call;
        const logged = `the log says ${forth} forth and ${back} back${error ? `, ${error}` : ""}`;
        const isLess = forth < heard.forth || back < heard.back;
        const isMore = forth > said.forth || back > said.back;
        if (isLess || isMore || (isClean && error !== undefined)) this.#complain(call, [logged]);
      }
    }
    await this.#judgeTotals(wanted);
  }

  /** Of inbound connections lines can't be told apart: a tunnel's source is that of all its streams. */
  async #judgeTotals(calls: readonly TortureCall[]): Promise<void> {
    const arriving = calls.filter(({ path }) => path.hasInbound);
    for (const direction of ["forth", "back"] as const) {
      const low = arriving.reduce((sum, { heard }) => sum + heard[direction], 0);
      const high = arriving.reduce((sum, { said }) => sum + said[direction], 0);
      const total = await eventually(
        () => this.#ledger.total("inbound")[direction],
        (sum) => sum >= low,
      );
      if (total < low || total > high) {
        this.#problems.push(
          `all inbound lines say ${total} bytes ${direction}, not ${low} to ${high}`,
        );
      }
    }
    const differences = await eventually(
      () => this.#ledger.metricDifferences(),
      ({ length }) => length === 0,
    );
    this.#problems.push(...differences);
  }

  async #judgeRest(descriptorsBefore: readonly number[]): Promise<void> {
    for (const [i, name] of NODES.entries()) {
      const live = await eventually(
        () => liveConnections(this.#lab.lab, name),
        ({ length }) => length === 0,
      );
      if (live.length > 0) this.#problems.push(`${name} still has ${live.join(", ")}`);
      const before = descriptorsBefore[i] ?? 0;
      const left = await eventually(
        () => (this.#descriptorCounts()[i] ?? 0) - before,
        (count) => count <= DESCRIPTORS_SPARE,
      );
      if (left > DESCRIPTORS_SPARE)
        this.#problems.push(`${name} has ${left} descriptors more than before`);
    }
  }

  #descriptorCounts(): readonly number[] {
    return NODES.map((name) => fdCount(this.#lab.lab.node(name).process.pid ?? 0));
  }

  #complain(call: TortureCall, problems: readonly string[]): void {
    for (const problem of problems) this.#problems.push(`${problem}: ${call}`);
  }
}

/** @returns what there is when it is as it should be, or when that takes too long. */
async function eventually<Value>(
  look: () => Value | Promise<Value>,
  isRight: (value: Value) => boolean,
): Promise<Value> {
  const deadline = performance.now() + SETTLED_MS_MAX;
  for (;;) {
    const value = await look();
    if (isRight(value) || performance.now() > deadline) return value;
    await sleep(POLL_MS);
  }
}
