/** Our numbers; most are those of RFC 9113 section 6.5.2. */
export interface Http2Settings {
  /** SETTINGS_INITIAL_WINDOW_SIZE, bytes. */
  readonly streamWindowBytes: number;
  /** Receive window of the whole connection, bytes; not below 65535. */
  readonly connectionWindowBytes: number;
  /** SETTINGS_MAX_FRAME_SIZE, bytes, 16384 to 16777215. */
  readonly frameBytesMax: number;
  /** SETTINGS_MAX_HEADER_LIST_SIZE, bytes. */
  readonly headerListBytesMax: number;
  /** Server: SETTINGS_MAX_CONCURRENT_STREAMS. Client: the most it opens, whatever the peer allows. */
  readonly streamsMax: number;
  /** How much of each kind of flood is let through, percent of the limits. */
  readonly floodPercent: number;
}
