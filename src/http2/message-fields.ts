/**
 * Decoded header lists to requests and answers; what is malformed by RFC 9113 section 8.2 and 8.3 is
 * told apart from what a proxy answers with a status.
 */

export interface Http2Request {
  readonly method: string;
  /** Never empty; a CONNECT without it is well-formed enough to be answered (as the original does). */
  readonly authority: string | undefined;
  /** Without pseudo-headers; lower-case names, repeated fields joined with `,`. */
  readonly headers: Map<string, string>;
}

export interface Http2Response {
  /** 100 to 599. */
  readonly status: number;
  readonly headers: Map<string, string>;
}

const PSEUDO_OF_REQUEST: ReadonlySet<string> = new Set([
  ":method",
  ":authority",
  ":scheme",
  ":path",
  ":protocol",
]);
const PSEUDO_OF_RESPONSE: ReadonlySet<string> = new Set([":status"]);

/** Fields that speak of a connection of HTTP/1.1. RFC 9113 section 8.2.2. */
const CONNECTION_FIELDS: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "transfer-encoding",
  "upgrade",
]);

const FIELD_NAME = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/;
const FIELD_VALUE = /^(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?$/;

/**
 * @param fields name, value, name, value …
 * @returns what is malformed, in words: RST_STREAM(PROTOCOL_ERROR).
 */
export function parseRequest(fields: readonly string[]): Http2Request | string {
  const pseudo = new Map<string, string>();
  const headers = parseFields(fields, PSEUDO_OF_REQUEST, pseudo);
  if (headers === undefined) return "a field that must not be, or stands in a wrong place";
  const method = pseudo.get(":method");
  if (!method) return "no :method";
  const authority = pseudo.get(":authority");
  if (authority === "") return "empty :authority";
  if (method === "CONNECT") {
    // Also extended CONNECT (RFC 8441), which is never offered.
    for (const name of [":protocol", ":scheme", ":path"]) {
      if (pseudo.has(name)) return `CONNECT with ${name}`;
    }
  } else {
    for (const name of [":scheme", ":path"])
      if (!pseudo.get(name)) return `${method} without ${name}`;
    if (pseudo.has(":protocol")) return `${method} with :protocol`;
  }
  return { method, authority, headers };
}

/** @returns `undefined` when malformed. */
export function parseResponse(fields: readonly string[]): Http2Response | undefined {
  const pseudo = new Map<string, string>();
  const headers = parseFields(fields, PSEUDO_OF_RESPONSE, pseudo);
  const status = pseudo.get(":status") ?? "";
  if (headers === undefined || !/^[1-5]\d\d$/.test(status)) return undefined;
  return { status: Number(status), headers };
}

/** Sorts out the pseudo-headers; `undefined` when a field must not be or stands in a wrong place. */
function parseFields(
  fields: readonly string[],
  pseudoNames: ReadonlySet<string>,
  pseudo: Map<string, string>,
): Map<string, string> | undefined {
  const headers = new Map<string, string>();
  for (let i = 0; i + 1 < fields.length; i += 2) {
    const name = fields[i] as string;
    const value = fields[i + 1] as string;
    if (!FIELD_VALUE.test(value)) return undefined;
    if (name.startsWith(":")) {
      if (headers.size > 0 || !pseudoNames.has(name) || pseudo.has(name)) return undefined;
      pseudo.set(name, value);
      continue;
    }
    if (!FIELD_NAME.test(name) || CONNECTION_FIELDS.has(name)) return undefined;
    if (name === "te" && value !== "trailers") return undefined;
    const before = headers.get(name);
    headers.set(name, before === undefined ? value : `${before},${value}`);
  }
  return headers;
}
