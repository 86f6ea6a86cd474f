/**
 * The certificate request that we send for an identity: a fresh P-256 key, an empty subject and the
 * SPIFFE ID as the one, critical, URI SAN.
 *
 * pkijs costs 15 MB of memory, so it is loaded when the first request is made: the threads that only
 * move bytes never pay for it.
 *
 * @see spec control-plane 5.2.
 */
import { formatSpiffeId, type Identity } from "../mesh/identity.ts";
import { errorText } from "../runtime/error-text.ts";
import { formatPem } from "./pem.ts";
import { TlsError } from "./tls-error.ts";

export interface CertificateRequest {
  readonly csrPem: string;
  /** PKCS#8 PEM. Never logged, dumped or written. */
  readonly privateKeyPem: string;
}

const OID_SUBJECT_ALT_NAME = "2.5.29.17";
const OID_EXTENSION_REQUEST = "1.2.840.113549.1.9.14";
/** GeneralName's choice `uniformResourceIdentifier` (RFC 5280 section 4.2.1.6). */
const GENERAL_NAME_URI = 6;
/** A name of no parts, DER. pkijs itself writes one empty part, which strict readers refuse. */
const EMPTY_NAME = Uint8Array.of(0x30, 0x00);

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
  const {
    Attribute,
    CertificationRequest,
    Extension,
    Extensions,
    GeneralName,
    GeneralNames,
    RelativeDistinguishedNames,
  } = await import("pkijs");
  const keys = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, [
    "sign",
    "verify",
  ]);
  const names = new GeneralNames({
    names: [new GeneralName({ type: GENERAL_NAME_URI, value: uri })],
  });
  const subjectAltName = new Extension({
    extnID: OID_SUBJECT_ALT_NAME,
    critical: true,
    extnValue: names.toSchema().toBER(),
  });
  const request = new CertificationRequest({
    subject: RelativeDistinguishedNames.fromBER(EMPTY_NAME),
    attributes: [
      new Attribute({
        type: OID_EXTENSION_REQUEST,
        values: [new Extensions({ extensions: [subjectAltName] }).toSchema()],
      }),
    ],
  });
  await request.subjectPublicKeyInfo.importKey(keys.publicKey);
  await request.sign(keys.privateKey, "SHA-256");
  const pkcs8 = await crypto.subtle.exportKey("pkcs8", keys.privateKey);
  return {
    csrPem: formatPem("CERTIFICATE REQUEST", new Uint8Array(request.toSchema().toBER())),
    privateKeyPem: formatPem("PRIVATE KEY", new Uint8Array(pkcs8)),
  };
}
