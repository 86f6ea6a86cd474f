/**
 * `/debug/pprof/…`: profiles of the threads of this process, for `go tool pprof`.
 *
 * @see spec control-plane 7.1
 */
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import {
  type CallNode,
  HEAP_INTERVAL_BYTES,
  type ProfileRequest,
} from "../runtime/thread-profiler.ts";
import { encodeProfile, type ProfileMeasure } from "../wire/pprof-profile.ts";
import type { HttpAnswer, HttpQuestion } from "./http-listener.ts";

/** Port: the profilers of all threads. */
export interface Profiler {
  readonly threads: readonly string[];
  /** @throws Error what V8 says; that the thread has ended. */
  profile(thread: string, request: ProfileRequest): Promise<readonly CallNode[]>;
}

const SECONDS = { min: 1, max: 300, default: 10 };
const FREQUENCY_HZ = { min: 1, max: 1000, default: 100 };

const INACTIVE =
  "heap profiling not active; activate with /debug/pprof/heap/profiling?activate=true";

const compress = promisify<Uint8Array, Uint8Array>(gzip);

export class ProfilePages {
  readonly #profiler: Profiler;
  #isSampling = false;
  #isProfiling = false;

  constructor(profiler: Profiler) {
    this.#profiler = profiler;
  }

  /** @returns `undefined` when it is another page that is asked for. */
  answer({ path, query }: HttpQuestion): Promise<HttpAnswer> | undefined {
    switch (path) {
      case "/debug/pprof/profile":
        return this.#cpu(query);
      case "/debug/pprof/heap":
        return this.#heap(query);
      case "/debug/pprof/heap/profiling":
        return this.#heapProfiling(query);
      default:
        return undefined;
    }
  }

  async #cpu(query: URLSearchParams): Promise<HttpAnswer> {
    const seconds = readInteger(query.get("seconds"), SECONDS);
    if (seconds === undefined) return refusal("invalid seconds value; expected 1-300\n");
    const frequencyHz = readInteger(query.get("frequency"), FREQUENCY_HZ);
    if (frequencyHz === undefined) return refusal("invalid frequency value; expected 1-1000\n");
    const threads = this.#threads(query);
    if (threads === undefined) return this.#unknownThread();
    if (this.#isProfiling) return { status: 409, body: "a profile is being taken already\n" };
    this.#isProfiling = true;
    try {
      const durationMs = seconds * 1000;
      return await this.#take(
        threads,
        { kind: "cpu", durationMs, frequencyHz },
        {
          type: "cpu",
          unit: "nanoseconds",
          period: Math.round(1e9 / frequencyHz),
          durationNs: seconds * 1e9,
        },
      );
    } finally {
      this.#isProfiling = false;
    }
  }

  async #heap(query: URLSearchParams): Promise<HttpAnswer> {
    const threads = this.#threads(query);
    if (threads === undefined) return this.#unknownThread();
    if (!this.#isSampling) return { status: 500, body: INACTIVE };
    return this.#take(
      threads,
      { kind: "heap" },
      { type: "inuse_space", unit: "bytes", period: HEAP_INTERVAL_BYTES, durationNs: 0 },
    );
  }

  async #heapProfiling(query: URLSearchParams): Promise<HttpAnswer> {
    const wanted = query.get("activate");
    if (wanted !== null && wanted !== "true" && wanted !== "false") {
      return refusal("invalid activate value; expected true or false\n");
    }
    if (wanted !== null) {
      const active = wanted === "true";
      await this.#ask(this.#profiler.threads, { kind: "heap-sampling", active });
      this.#isSampling = active;
    }
    return { status: 200, body: `heap profiling active: ${this.#isSampling}\n` };
  }

  async #take(
    threads: readonly string[],
    request: ProfileRequest,
    measure: ProfileMeasure,
  ): Promise<HttpAnswer> {
    const profiles = await this.#ask(threads, request);
    return {
      status: 200,
      headers: { "content-type": "application/octet-stream" },
      body: await compress(encodeProfile(profiles, measure)),
    };
  }

  #ask(threads: readonly string[], request: ProfileRequest) {
    return Promise.all(
      threads.map(async (thread) => {
        return { thread, nodes: await this.#profiler.profile(thread, request) };
      }),
    );
  }

  #threads(query: URLSearchParams): readonly string[] | undefined {
    const { threads } = this.#profiler;
    const wanted = query.get("thread");
    if (wanted === null) return threads;
    return threads.includes(wanted) ? [wanted] : undefined;
  }

  #unknownThread(): HttpAnswer {
    return refusal(`invalid thread value; expected ${this.#profiler.threads.join(", ")}\n`);
  }
}

function refusal(body: string): HttpAnswer {
  return { status: 400, body };
}

function readInteger(
  text: string | null,
  range: { readonly min: number; readonly max: number; readonly default: number },
): number | undefined {
  if (text === null) return range.default;
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  return value >= range.min && value <= range.max ? value : undefined;
}
