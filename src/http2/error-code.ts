/** Error codes of RST_STREAM and GOAWAY, RFC 9113 section 7. */
export const ErrorCode: {
  readonly noError: 0x0;
  readonly protocolError: 0x1;
  readonly internalError: 0x2;
  readonly flowControlError: 0x3;
  readonly streamClosed: 0x5;
  readonly frameSizeError: 0x6;
  readonly refusedStream: 0x7;
  readonly cancel: 0x8;
  readonly compressionError: 0x9;
  readonly connectError: 0xa;
  readonly enhanceYourCalm: 0xb;
} = {
  noError: 0x0,
  protocolError: 0x1,
  internalError: 0x2,
  flowControlError: 0x3,
  streamClosed: 0x5,
  frameSizeError: 0x6,
  refusedStream: 0x7,
  cancel: 0x8,
  compressionError: 0x9,
  connectError: 0xa,
  enhanceYourCalm: 0xb,
};
