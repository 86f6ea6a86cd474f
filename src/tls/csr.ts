/**
 * The certificate request that we send for an identity: a fresh P-256 key, an empty subject and the
 * SPIFFE ID as the one, critical, URI SAN.
 *
 * It is the same few bytes each time but for the key and the ID, so they are written here: a library
 * that can write any request costs 15 MB and most of the time that the first one takes.
 *
 * @see spec control-plane 5.2, RFC 2986 section 4.
 */
import { generateKeyPair, sign } from "node:crypto";
import { promisify } from "node:util";
import { formatSpiffeId, type Identity } from "../mesh/identity.ts";
import { errorText } from "../runtime/error-text.ts";
import { formatPem } from "./pem.ts";
import { TlsError } from "./tls-error.ts";

export interface CertificateRequest {
  readonly csrPem: string;
  /** PKCS#8 PEM. Never logged, dumped or written. */
  readonly privateKeyPem: string;
}

/** Tags of DER (X.690 section 8). */
const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  sequence: 0x30,
  set: 0x31,
  /** GeneralName's choice `uniformResourceIdentifier` (RFC 5280 section 4.2.1.6). */
  uri: 0x86,
  attributes: 0xa0,
} as const;

/** 2.5.29.17, with its tag. */
const OID_SUBJECT_ALT_NAME = Buffer.from("0603551d11", "hex");
/** 1.2.840.113549.1.9.14 */
const OID_EXTENSION_REQUEST = Buffer.from("06092a864886f70d01090e", "hex");
/** 1.2.840.10045.4.3.2 */
const OID_ECDSA_WITH_SHA256 = Buffer.from("06082a8648ce3d040302", "hex");

const VERSION = element(TAG.integer, Uint8Array.of(0));
const EMPTY_NAME = element(TAG.sequence);
const CRITICAL = element(TAG.boolean, Uint8Array.of(0xff));

/** @throws TlsError `request`. */
export async function createCertificateRequest(identity: Identity): Promise<CertificateRequest> {
  try {
    return await createRequest(formatSpiffeId(identity));
  } catch (error) {
    const reason = errorText(error);
    throw new TlsError("request", `failed to create CSR: ${reason}`, { cause: error });
  }
}

async function createRequest(uri: string): Promise<CertificateRequest> {
  const { publicKey, privateKey } = await promisify(generateKeyPair)("ec", { namedCurve: "P-256" });
  const subjectAltName = element(
    TAG.sequence,
    OID_SUBJECT_ALT_NAME,
    CRITICAL,
    element(TAG.octetString, element(TAG.sequence, element(TAG.uri, Buffer.from(uri)))),
  );
  const extensions = element(TAG.sequence, subjectAltName);
  const asked = element(TAG.sequence, OID_EXTENSION_REQUEST, element(TAG.set, extensions));
  const spki = publicKey.export({ type: "spki", format: "der" });
  const info = element(TAG.sequence, VERSION, EMPTY_NAME, spki, element(TAG.attributes, asked));
  const signature = sign("sha256", info, privateKey);
  const request = element(
    TAG.sequence,
    info,
    element(TAG.sequence, OID_ECDSA_WITH_SHA256),
    // No bit of the last byte is unused.
    element(TAG.bitString, Uint8Array.of(0), signature),
  );
  return {
    csrPem: formatPem("CERTIFICATE REQUEST", request),
    privateKeyPem: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
  };
}

function element(tag: number, ...contents: readonly Uint8Array[]): Buffer {
  const length = contents.reduce((sum, { length: one }) => sum + one, 0);
  return Buffer.concat([Uint8Array.from([tag, ...lengthBytes(length)]), ...contents]);
}

/** One byte below 128, else how many follow and these (X.690 section 8.1.3). */
function lengthBytes(length: number): readonly number[] {
  if (length < 0x80) return [length];
  return length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
}
