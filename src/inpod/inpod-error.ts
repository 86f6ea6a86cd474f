/** What goes wrong between the node agent and us, and the words in which each side is told. */

export type InpodErrorCode =
  /** A packet that can't be read as a request; the conversation ends and is begun anew. */
  | "read"
  /** A workload's listeners could not be opened; it is tried again later. */
  | "start"
  /** The agent broke the order of the dialogue; the process ends, as mixed versions would not heal. */
  | "protocol";

export class InpodError extends Error {
  override readonly name = "InpodError";
  readonly code: InpodErrorCode;

  constructor(code: InpodErrorCode, message: string, more: { cause?: unknown } = {}) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.code = code;
  }
}

/** The text of the negative acknowledgement. The space before the colon is the original's. */
export function nackText(error: InpodError): string {
  switch (error.code) {
    case "read":
      return `failure to read message : ${error.message}`;
    case "start":
      return `failure to start proxy : ${detailedText(error)}`;
    case "protocol":
      return `failure to process message : ${detailedText(error)}`;
  }
}

/** The longer spelling that the original uses in acknowledgements and in error lines. */
export function detailedText(error: InpodError): string {
  if (error.code === "protocol") return `ProtocolError(${JSON.stringify(error.message)})`;
  const bind = /^failed to bind to address (\S+): (.+) \(os error (\d+)\)$/.exec(error.message);
  if (bind === null) return error.message;
  return `Bind(${bind[1]}, ${osErrorText(Number(bind[3]), bind[2] as string)})`;
}

/** `Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }`. */
export function osErrorText(errno: number, message: string): string {
  const kind = ERROR_KINDS[errno] ?? "Uncategorized";
  return `Os { code: ${errno}, kind: ${kind}, message: ${JSON.stringify(message)} }`;
}

/** Linux errno → the original's name of the kind of failure. */
const ERROR_KINDS: Readonly<Record<number, string>> = {
  1: "PermissionDenied",
  2: "NotFound",
  13: "PermissionDenied",
  22: "InvalidInput",
  32: "BrokenPipe",
  98: "AddrInUse",
  99: "AddrNotAvailable",
  104: "ConnectionReset",
  110: "TimedOut",
  111: "ConnectionRefused",
};
