/**
 * The URIs in a certificate's subjectAltName, read from the DER itself.
 *
 * Node shows that extension as display text only, in which a crafted name can pose as two; a whole
 * X.509 library costs more memory than a data thread has. So this walks the few levels down to the
 * one extension. It is total: bytes that are no certificate have no URIs.
 *
 * @see RFC 5280 sections 4.1 and 4.2.1.6; X.690 section 10 for DER.
 */
import { children, childrenOf, type Element, only } from "./der.ts";

const TAG = {
  boolean: 0x01,
  octetString: 0x04,
  objectIdentifier: 0x06,
  sequence: 0x30,
  /** GeneralName `[6] uniformResourceIdentifier`. */
  uri: 0x86,
  /** TBSCertificate `[3] extensions`. */
  extensions: 0xa3,
} as const;

/** The nine choices of GeneralName, `[0] otherName` to `[8] registeredID`. */
const GENERAL_NAMES: readonly number[] = [0xa0, 0x81, 0x82, 0xa3, 0xa4, 0xa5, TAG.uri, 0x87, 0x88];

/** 2.5.29.17 */
const SUBJECT_ALT_NAME = [0x55, 0x1d, 0x11];

/**
 * The URI names in order; names with bytes outside printable ASCII are left out.
 *
 * @param certificateDer one X.509 certificate.
 * @returns nothing when the extension is missing, there twice, or anything on the way is malformed.
 */
export function subjectAltUris(certificateDer: Uint8Array): readonly string[] {
  const names = subjectAltNames(certificateDer) ?? [];
  return names
    .filter(({ tag }) => tag === TAG.uri)
    .map(({ start, end }) => printableText(certificateDer, start, end))
    .filter((uri) => uri !== undefined);
}

function subjectAltNames(bytes: Uint8Array): readonly Element[] | undefined {
  const certificate = only(children(bytes, 0, bytes.length), TAG.sequence);
  const toBeSigned = childrenOf(bytes, certificate)?.[0];
  if (toBeSigned?.tag !== TAG.sequence) return undefined;
  const wrapper = childrenOf(bytes, toBeSigned)?.find(({ tag }) => tag === TAG.extensions);
  const list = childrenOf(bytes, only(childrenOf(bytes, wrapper), TAG.sequence)) ?? [];
  const extensions = list.map((element) => childrenOf(bytes, element));
  if (!extensions.every((parts) => parts !== undefined)) return undefined;
  const found = extensions.filter(([id]) => id !== undefined && isSubjectAltName(bytes, id));
  const [extension] = found;
  if (extension === undefined || found.length > 1) return undefined;
  const critical = extension[1]?.tag === TAG.boolean ? 1 : 0;
  const value = extension[1 + critical];
  if (value?.tag !== TAG.octetString || extension.length !== 2 + critical) return undefined;
  const names = childrenOf(bytes, only(childrenOf(bytes, value), TAG.sequence));
  return names?.every(isGeneralName) ? names : undefined;
}

function isGeneralName({ tag }: Element): boolean {
  return GENERAL_NAMES.includes(tag);
}

function isSubjectAltName(bytes: Uint8Array, id: Element): boolean {
  return (
    id.tag === TAG.objectIdentifier &&
    id.end - id.start === SUBJECT_ALT_NAME.length &&
    SUBJECT_ALT_NAME.every((byte, i) => bytes[id.start + i] === byte)
  );
}

/** @returns `undefined` when it holds a space, a control or a byte above ASCII: no URI has them. */
function printableText(bytes: Uint8Array, start: number, end: number): string | undefined {
  let text = "";
  for (let i = start; i < end; i++) {
    const byte = bytes[i] as number;
    if (byte < 0x21 || byte > 0x7e) return undefined;
    text += String.fromCharCode(byte);
  }
  return text;
}
