/**
 * Frames to bytes in memory that the caller owns. Each function writes at `offset` and needs the
 * room that its name says: {@link FRAME_HEADER_BYTES} and the payload.
 */
import { FRAME_HEADER_BYTES, FrameFlag, FrameType, SETTING_BYTES } from "./frame.ts";

/** Writes the nine bytes before a payload of `length` bytes. */
export function writeFrameHeader(
  bytes: Uint8Array,
  offset: number,
  length: number,
  type: number,
  flags: number,
  streamId: number,
): void {
  bytes[offset] = length >>> 16;
  bytes[offset + 1] = length >>> 8;
  bytes[offset + 2] = length;
  bytes[offset + 3] = type;
  bytes[offset + 4] = flags;
  writeUint32(bytes, offset + 5, streamId);
}

/** SETTINGS: 9 bytes and 6 for each setting. */
export function writeSettings(
  bytes: Uint8Array,
  offset: number,
  settings: readonly (readonly [id: number, value: number])[],
): void {
  writeFrameHeader(bytes, offset, settings.length * SETTING_BYTES, FrameType.settings, 0, 0);
  let at = offset + FRAME_HEADER_BYTES;
  for (const [id, value] of settings) {
    bytes[at] = id >>> 8;
    bytes[at + 1] = id;
    writeUint32(bytes, at + 2, value);
    at += SETTING_BYTES;
  }
}

/** SETTINGS with ACK: 9 bytes. */
export function writeSettingsAck(bytes: Uint8Array, offset: number): void {
  writeFrameHeader(bytes, offset, 0, FrameType.settings, FrameFlag.ack, 0);
}

/** PING or its answer: 17 bytes. */
export function writePing(
  bytes: Uint8Array,
  offset: number,
  payload: Uint8Array,
  isAck: boolean,
): void {
  const flags = isAck ? FrameFlag.ack : 0;
  writeFrameHeader(bytes, offset, payload.length, FrameType.ping, flags, 0);
  bytes.set(payload, offset + FRAME_HEADER_BYTES);
}

/** RST_STREAM: 13 bytes. */
export function writeRstStream(
  bytes: Uint8Array,
  offset: number,
  streamId: number,
  code: number,
): void {
  writeFrameHeader(bytes, offset, 4, FrameType.rstStream, 0, streamId);
  writeUint32(bytes, offset + FRAME_HEADER_BYTES, code);
}

/** WINDOW_UPDATE: 13 bytes. Stream 0 is the connection. */
export function writeWindowUpdate(
  bytes: Uint8Array,
  offset: number,
  streamId: number,
  increment: number,
): void {
  writeFrameHeader(bytes, offset, 4, FrameType.windowUpdate, 0, streamId);
  writeUint32(bytes, offset + FRAME_HEADER_BYTES, increment);
}

/** GOAWAY: 17 bytes and one for each character of the debug text, which is ASCII. */
export function writeGoaway(
  bytes: Uint8Array,
  offset: number,
  lastStreamId: number,
  code: number,
  debug: string,
): void {
  writeFrameHeader(bytes, offset, 8 + debug.length, FrameType.goaway, 0, 0);
  writeUint32(bytes, offset + FRAME_HEADER_BYTES, lastStreamId);
  writeUint32(bytes, offset + FRAME_HEADER_BYTES + 4, code);
  for (let i = 0; i < debug.length; i++) {
    bytes[offset + FRAME_HEADER_BYTES + 8 + i] = debug.charCodeAt(i);
  }
}

function writeUint32(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value >>> 24;
  bytes[offset + 1] = value >>> 16;
  bytes[offset + 2] = value >>> 8;
  bytes[offset + 3] = value;
}
