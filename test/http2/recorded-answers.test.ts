/**
 * Someone calls the original, as recorded; here the same bytes come to us, with an owner that judges
 * each request as the original's did. Header blocks must come out byte for byte, resets with the same
 * code, and what the original refused without asking must not reach the owner.
 */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { encodeFrame, type Frame, PREFACE } from "../support/http2-frames.ts";
import { type RecordedFrame, recordedConversations } from "./recorded-frames.ts";
import { Side } from "./side.ts";

/** Streams that an application ended, which nobody plays here. */
const OF_APPLICATIONS: ReadonlySet<string> = new Set(["application resets"]);

describe("a caller of the original hears from us the same answers when it sends", () => {
  for (const { what, frames } of recordedConversations("call")) {
    const answers = frames.filter(isAnswer);
    if (answers.length === 0 || OF_APPLICATIONS.has(what)) continue;
    it(what, () => {
      const side = new Side("server");
      side.react.requested = (stream) => {
        const answer = answers.find((frame) => frame.stream === stream.id && frame.headers);
        assert(answer?.headers !== undefined, `the original did not let ${stream.id} through`);
        const [status, ...fields] = answer.headers;
        if (status?.[1] !== "200") side.connection.refuse(stream, Number(status?.[1]));
        else {
          side.connection.respond(
            stream,
            200,
            fields.map(([name, value]) => [name, value]),
          );
        }
      };
      side.hear(PREFACE);
      for (const frame of frames) {
        if (frame.from === "us") side.hear(Buffer.from(toWire(frame), "hex"));
      }
      assert.deepEqual(wireFrames(side.said()).filter(isAnswerOnWire), answers.map(toWire));
    });
  }
});

function isAnswer(frame: RecordedFrame): boolean {
  return frame.from === "proxy" && (frame.type === "HEADERS" || frame.type === "RST_STREAM");
}

/** A frame in hexadecimal. */
function toWire(frame: RecordedFrame): string {
  return encodeFrame(frame.hex?.length === 2 * frame.len ? asBytes(frame) : frame).toString("hex");
}

/** The payload as it was, not as it was understood. */
function asBytes({ type, flags, stream, hex }: RecordedFrame): Frame {
  return { type, flags, stream, hex: hex ?? "" };
}

function wireFrames(bytes: Buffer): string[] {
  const frames: string[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = at + 9 + bytes.readUIntBE(at, 3);
    frames.push(bytes.toString("hex", at, end));
    at = end;
  }
  return frames;
}

function isAnswerOnWire(hex: string): boolean {
  const type = hex.slice(6, 8);
  return type === "01" || type === "03";
}
