/** Frames of the original as recorded on the wire, with the bytes of their payloads. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

export interface RecordedFrame {
  readonly from: "us" | "proxy";
  readonly type: string;
  readonly flags: number;
  readonly stream: number;
  /** Of the payload; long ones are cut off. */
  readonly len: number;
  readonly hex?: string;
  readonly headers?: readonly (readonly [name: string, value: string, how?: string])[];
}

export interface Conversation {
  readonly what: string;
  readonly frames: readonly RecordedFrame[];
}

const DIRECTORY = join(import.meta.dirname, "../fixtures/ztunnel/wire");

/** `call`: someone calls the original; `serve`: the original calls someone. */
export function recordedConversations(name: "call" | "serve" | "drain"): readonly Conversation[] {
  const all = JSON.parse(
    readFileSync(join(DIRECTORY, `${name}.json`), "utf8"),
  ) as Partial<Conversation>[];
  return all.filter((one): one is Conversation => one.frames !== undefined);
}
