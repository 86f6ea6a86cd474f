/** Numbers of the frame layout, RFC 9113 sections 4 and 6. */

export const FrameType: {
  readonly data: 0x0;
  readonly headers: 0x1;
  readonly priority: 0x2;
  readonly rstStream: 0x3;
  readonly settings: 0x4;
  readonly pushPromise: 0x5;
  readonly ping: 0x6;
  readonly goaway: 0x7;
  readonly windowUpdate: 0x8;
  readonly continuation: 0x9;
} = {
  data: 0x0,
  headers: 0x1,
  priority: 0x2,
  rstStream: 0x3,
  settings: 0x4,
  pushPromise: 0x5,
  ping: 0x6,
  goaway: 0x7,
  windowUpdate: 0x8,
  continuation: 0x9,
};

export const FrameFlag: {
  readonly ack: 0x1;
  readonly endStream: 0x1;
  readonly endHeaders: 0x4;
  readonly padded: 0x8;
  readonly priority: 0x20;
} = { ack: 0x1, endStream: 0x1, endHeaders: 0x4, padded: 0x8, priority: 0x20 };

export const SettingId: {
  readonly headerTableSize: 0x1;
  readonly enablePush: 0x2;
  readonly maxConcurrentStreams: 0x3;
  readonly initialWindowSize: 0x4;
  readonly maxFrameSize: 0x5;
  readonly maxHeaderListSize: 0x6;
} = {
  headerTableSize: 0x1,
  enablePush: 0x2,
  maxConcurrentStreams: 0x3,
  initialWindowSize: 0x4,
  maxFrameSize: 0x5,
  maxHeaderListSize: 0x6,
};

/** Length, type, flags and stream before each payload. */
export const FRAME_HEADER_BYTES = 9;

/** SETTINGS_MAX_FRAME_SIZE until a peer says otherwise, and its least value. */
export const FRAME_BYTES_DEFAULT = 16_384;
export const FRAME_BYTES_MAX: number = 2 ** 24 - 1;

/** Windows of streams and connections until SETTINGS or WINDOW_UPDATE change them. */
export const WINDOW_BYTES_DEFAULT = 65_535;
export const WINDOW_BYTES_MAX: number = 2 ** 31 - 1;

export const STREAM_ID_MAX: number = 2 ** 31 - 1;

export const PING_BYTES = 8;
export const SETTING_BYTES = 6;

/** What a client says first. RFC 9113 section 3.4. */
export const PREFACE: Uint8Array = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");
