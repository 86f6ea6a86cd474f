/** Where a frame may be and how long, by its type. RFC 9113 section 6. */
import { FrameFlag, FrameType, PING_BYTES, SETTING_BYTES } from "./frame.ts";
import { Http2Error } from "./http2-error.ts";

/** A peer says what it has to say in six settings; CVE-2019-9515 counts on long lists too. */
const SETTINGS_MAX = 64;

/** Stream dependency and weight. */
export const PRIORITY_BYTES = 5;

/** Last stream and error code of GOAWAY, before its debug text. */
export const GOAWAY_BYTES = 8;

/** RST_STREAM and WINDOW_UPDATE. */
const NUMBER_BYTES = 4;

/** @throws Http2Error when the frame must not be, or not like this; DATA has rules of its own. */
export function checkFrame(type: number, flags: number, streamId: number, length: number): void {
  checkStream(type, streamId);
  checkLength(type, flags, length);
}

/** A frame of the connection on a stream, or the reverse. */
export function misplaced(type: number, streamId: number): Http2Error {
  return new Http2Error("protocol", `frame of type ${type} on stream ${streamId}`);
}

function checkStream(type: number, streamId: number): void {
  switch (type) {
    case FrameType.headers:
    case FrameType.priority:
    case FrameType.rstStream:
      if (streamId === 0) throw misplaced(type, 0);
      return;
    case FrameType.settings:
    case FrameType.ping:
    case FrameType.goaway:
      if (streamId !== 0) throw misplaced(type, streamId);
      return;
    case FrameType.pushPromise:
      throw new Http2Error("protocol", "PUSH_PROMISE although push is off");
  }
}

function checkLength(type: number, flags: number, length: number): void {
  if (hasLawfulLength(type, flags, length)) return;
  throw new Http2Error("frame-size", `frame of type ${type} with ${length} bytes`);
}

function hasLawfulLength(type: number, flags: number, length: number): boolean {
  switch (type) {
    case FrameType.settings:
      if (length > SETTINGS_MAX * SETTING_BYTES) {
        throw new Http2Error("flood", "too many settings in a frame (CVE-2019-9515)");
      }
      return (flags & FrameFlag.ack) === 0 ? length % SETTING_BYTES === 0 : length === 0;
    case FrameType.priority:
      return length === PRIORITY_BYTES;
    case FrameType.rstStream:
    case FrameType.windowUpdate:
      return length === NUMBER_BYTES;
    case FrameType.ping:
      return length === PING_BYTES;
    case FrameType.goaway:
      return length >= GOAWAY_BYTES;
    default:
      return true;
  }
}
