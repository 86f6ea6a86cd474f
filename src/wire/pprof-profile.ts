/**
 * Profiles of threads as pprof reads them.
 *
 * @see https://github.com/google/pprof/blob/main/proto/README.md
 */
import type { CallNode } from "../runtime/thread-profiler.ts";
import { encodeMessage } from "./message-codec.ts";
import {
  type FunctionMessage,
  type Location,
  Profile,
  type Sample,
} from "./proto/perftools-profiles.ts";

export interface ThreadProfile {
  /** Becomes the label `thread` of its samples. */
  readonly thread: string;
  readonly nodes: readonly CallNode[];
}

/** What the values of the nodes are. */
export interface ProfileMeasure {
  readonly type: "cpu" | "inuse_space";
  readonly unit: "nanoseconds" | "bytes";
  /** Between two samples, in the unit. */
  readonly period: number;
  /** How long was sampled, nanoseconds; 0: since nobody knows when. */
  readonly durationNs: number;
}

/** @returns the message, not compressed. */
export function encodeProfile(
  threads: readonly ThreadProfile[],
  { type, unit, period, durationNs }: ProfileMeasure,
): Uint8Array {
  const strings = new Interned<string>();
  strings.indexOf("", "");
  const text = (value: string): number => strings.indexOf(value, value);
  const functions = new Interned<FunctionMessage>();
  const locations = new Interned<Location>();

  /** A function is its own only location: V8 counts by function. */
  const locationOf = ({ functionName, url, line }: CallNode): number => {
    const filename = url.replace(/^file:\/\//, "");
    const key = `${functionName} ${filename} ${line}`;
    const id = functions.size + 1;
    const name = text(functionName || "(anonymous)");
    const made = { id, name, systemName: name, filename: text(filename), startLine: line };
    const functionId = functions.indexOf(key, made) + 1;
    return locations.indexOf(key, { id, line: [{ functionId, line }] }) + 1;
  };

  const sample: Sample[] = [];
  for (const { thread, nodes } of threads) {
    const label = [{ key: text("thread"), str: text(thread) }];
    for (const node of nodes) {
      if (node.value === 0) continue;
      const locationId = stackOf(node, nodes).map(locationOf);
      sample.push({ locationId, value: [node.value], label });
    }
  }
  const valueType = { type: text(type), unit: text(unit) };
  return encodeMessage(Profile, {
    sampleType: [valueType],
    sample,
    location: locations.values(),
    function: functions.values(),
    stringTable: strings.values(),
    durationNanos: durationNs,
    periodType: valueType,
    period,
  });
}

/** The node and its callers, without the root, which is no function. */
function stackOf(node: CallNode, nodes: readonly CallNode[]): readonly CallNode[] {
  const stack: CallNode[] = [];
  let next: CallNode | undefined = node;
  while (next !== undefined && next.caller >= 0) {
    stack.push(next);
    next = nodes[next.caller];
  }
  return stack;
}

/** A list in which equal things stand once. */
class Interned<T> {
  readonly #values: T[] = [];
  readonly #indexes = new Map<string, number>();

  get size(): number {
    return this.#values.length;
  }

  indexOf(key: string, value: T): number {
    const known = this.#indexes.get(key);
    if (known !== undefined) return known;
    this.#indexes.set(key, this.#values.length);
    return this.#values.push(value) - 1;
  }

  values(): T[] {
    return this.#values;
  }
}
