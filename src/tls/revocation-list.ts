/**
 * Certificate revocation lists, cut into what a lookup needs.
 *
 * @see RFC 5280 section 5; spec control-plane 5.10.
 */
import { children, childrenOf, type Element, only } from "./der.ts";
import { pemBlocks } from "./pem.ts";
import { TlsError } from "./tls-error.ts";

/** Plain data that crosses threads; what is big in it is shared by them. */
export interface RevocationList {
  /** DER of the issuer's name, hexadecimal. */
  readonly issuer: string;
  readonly serials: SerialNumbers;
  /** What is signed. */
  readonly signedDer: Uint8Array;
  readonly signature: Uint8Array;
  /** Name of the hash for `node:crypto`; `undefined`: the key's algorithm has its own. */
  readonly hash: string | undefined;
}

/** A set of numbers, see {@link hasSerial}. */
export interface SerialNumbers {
  readonly count: number;
  /** Of each number. */
  readonly width: number;
  /** Ascending, big-endian with leading zeros. */
  readonly sorted: Uint8Array;
}

const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  /** TBSCertList `[0] crlExtensions`. */
  extensions: 0xa0,
  /** IssuingDistributionPoint `[3] onlySomeReasons` and `[4] indirectCRL`. */
  onlySomeReasons: 0x83,
  indirect: 0x84,
} as const;

/** Contents of the OIDs, hexadecimal. */
const ISSUING_DISTRIBUTION_POINT = "551d1c";
const HASHES: ReadonlyMap<string, string | undefined> = new Map([
  ["2a864886f70d01010b", "sha256"],
  ["2a864886f70d01010c", "sha384"],
  ["2a864886f70d01010d", "sha512"],
  ["2a8648ce3d040302", "sha256"],
  ["2a8648ce3d040303", "sha384"],
  ["2a8648ce3d040304", "sha512"],
  // Ed25519
  ["2b6570", undefined],
]);

const PEM_BEGIN = "-----BEGIN ";
const PEM_LABEL = "X509 CRL";

/**
 * @param file PEM with any number of lists among other blocks, or one list in DER; nothing but white
 *   space is no list at all.
 * @throws TlsError `bad-revocation-list` when one can't be read or means something else than a whole
 *   list of its issuer's own certificates.
 */
export function parseRevocationLists(file: Uint8Array): readonly RevocationList[] {
  const text = Buffer.from(file.buffer, file.byteOffset, file.byteLength).toString("latin1");
  if (text.trim() === "") return [];
  if (file[0] === TAG.sequence || !text.includes(PEM_BEGIN)) return [parseList(file)];
  return pemBlocks(text)
    .filter(({ label }) => label === PEM_LABEL)
    .map((block) => {
      const base64 = block.text.replaceAll(/-----[^-]*-----/g, "");
      return parseList(Buffer.from(base64, "base64"));
    });
}

function parseList(bytes: Uint8Array): RevocationList {
  const outer = childrenOf(bytes, only(children(bytes, 0, bytes.length), TAG.sequence)) ?? [];
  const [signed, algorithm, signature] = outer;
  if (
    outer.length !== 3 ||
    signed?.tag !== TAG.sequence ||
    algorithm?.tag !== TAG.sequence ||
    signature?.tag !== TAG.bitString
  ) {
    throw malformed("it is no certificate list");
  }
  const algorithmId = hex(bytes, childrenOf(bytes, algorithm)?.[0]);
  if (!HASHES.has(algorithmId)) throw malformed(`unknown signature algorithm ${algorithmId}`);
  const { issuer, revoked, extensions } = listParts(bytes, signed);
  checkExtensions(bytes, extensions);
  return {
    issuer: wholeHex(bytes, issuer),
    serials: serialNumbers(revoked.map((entry) => serialOf(bytes, entry))),
    signedDer: shared(bytes.subarray(signed.at, signed.end)),
    // The first byte of a bit string counts the bits that its last one does not use: none.
    signature: bytes.slice(signature.start + 1, signature.end),
    hash: HASHES.get(algorithmId),
  };
}

interface ListParts {
  readonly issuer: Element;
  readonly revoked: readonly Element[];
  readonly extensions: Element | undefined;
}

/** TBSCertList: `version?, signature, issuer, thisUpdate, nextUpdate?, revoked?, [0] extensions?` */
function listParts(bytes: Uint8Array, signed: Element): ListParts {
  const parts = [...(childrenOf(bytes, signed) ?? [])];
  if (parts[0]?.tag === TAG.integer) parts.shift();
  const [algorithm, issuer, thisUpdate] = parts.splice(0, 3);
  if (algorithm?.tag !== TAG.sequence || issuer?.tag !== TAG.sequence || !isTime(thisUpdate)) {
    throw malformed("issuer or date is missing");
  }
  if (isTime(parts[0])) parts.shift();
  const list = parts[0]?.tag === TAG.sequence ? parts.shift() : undefined;
  const extensions = parts[0]?.tag === TAG.extensions ? parts.shift() : undefined;
  const revoked = list === undefined ? [] : childrenOf(bytes, list);
  if (parts.length > 0 || revoked === undefined) throw malformed("its entries can't be read");
  return { issuer, revoked, extensions };
}

function isTime(element: Element | undefined): boolean {
  return element?.tag === TAG.utcTime || element?.tag === TAG.generalizedTime;
}

function serialOf(bytes: Uint8Array, entry: Element): string {
  const [serial, date, extensions] = childrenOf(bytes, entry) ?? [];
  if (entry.tag !== TAG.sequence || serial?.tag !== TAG.integer || !isTime(date)) {
    throw malformed("an entry can't be read");
  }
  const all = extensions === undefined ? [] : childrenOf(bytes, extensions);
  if (all === undefined || all.some((one) => isCritical(childrenOf(bytes, one)))) {
    // The one that exists names another issuer.
    throw malformed("an entry has a critical extension");
  }
  return serialHex(bytes, serial);
}

/** A delta or an indirect list revokes less, or others, than it seems to. */
function checkExtensions(bytes: Uint8Array, wrapper: Element | undefined): void {
  if (wrapper === undefined) return;
  const list = childrenOf(bytes, only(childrenOf(bytes, wrapper), TAG.sequence));
  if (list === undefined) throw malformed("its extensions can't be read");
  for (const element of list) {
    const parts = childrenOf(bytes, element);
    const id = hex(bytes, parts?.[0]);
    if (id === ISSUING_DISTRIBUTION_POINT) checkDistributionPoint(bytes, parts?.at(-1));
    else if (isCritical(parts)) throw malformed(`unknown critical extension ${id}`);
  }
}

function checkDistributionPoint(bytes: Uint8Array, value: Element | undefined): void {
  const fields = childrenOf(bytes, only(childrenOf(bytes, value), TAG.sequence));
  const isPartial = fields?.some(({ tag }) => tag === TAG.onlySomeReasons || tag === TAG.indirect);
  if (isPartial !== false) throw malformed("it is indirect or for some reasons only");
}

function isCritical(parts: readonly Element[] | undefined): boolean {
  return parts === undefined || parts[1]?.tag === TAG.boolean;
}

/** @param serial see {@link serialHex}. */
export function hasSerial({ count, width, sorted }: SerialNumbers, serial: string): boolean {
  if (serial.length > 2 * width) return false;
  const wanted = Buffer.from(serial.padStart(2 * width, "0"), "hex");
  let [from, to] = [0, count];
  while (from < to) {
    const middle = (from + to) >> 1;
    const order = wanted.compare(sorted, middle * width, (middle + 1) * width);
    if (order === 0) return true;
    if (order < 0) to = middle;
    else from = middle + 1;
  }
  return false;
}

/** @param serials see {@link serialHex}. */
export function serialNumbers(serials: readonly string[]): SerialNumbers {
  const width = serials.reduce((longest, { length }) => Math.max(longest, length), 0) / 2;
  const ascending = serials.map((serial) => serial.padStart(2 * width, "0")).sort();
  return {
    count: serials.length,
    width,
    sorted: shared(Buffer.from(ascending.join(""), "hex")),
  };
}

function shared(bytes: Uint8Array): Uint8Array {
  const copy = new Uint8Array(new SharedArrayBuffer(bytes.length));
  copy.set(bytes);
  return copy;
}

/** The contents of an INTEGER, whole bytes in hexadecimal without leading zeros. */
export function serialHex(bytes: Uint8Array, serial: Element): string {
  return hex(bytes, serial).replace(/^(?:00)+(?=.)/, "");
}

/** An element with its tag and length. */
export function wholeHex(bytes: Uint8Array, { at, end }: Element): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + at, end - at).toString("hex");
}

function hex(bytes: Uint8Array, element: Element | undefined): string {
  if (element === undefined) return "";
  const { start, end } = element;
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString("hex");
}

function malformed(reason: string): TlsError {
  return new TlsError("bad-revocation-list", `bad certificate revocation list: ${reason}`);
}
