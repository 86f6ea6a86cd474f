/**
 * X.509 certificates made and signed by ourselves: roots, workload leaves and server leaves of the
 * embedded authority. The shapes follow what a real istiod issues.
 */
import { randomBytes, webcrypto } from "node:crypto";
import { BitString, Integer, OctetString, Utf8String } from "asn1js";
import {
  AttributeTypeAndValue,
  AuthorityKeyIdentifier,
  BasicConstraints,
  Certificate,
  Extension,
  ExtKeyUsage,
  GeneralName,
  GeneralNames,
  PublicKeyInfo,
  RelativeDistinguishedNames,
  Time,
  TimeType,
} from "pkijs";
import { formatPem } from "../tls/pem.ts";

/** One subject alternative name. */
export type AlternativeName =
  | { readonly kind: "uri"; readonly uri: string }
  | { readonly kind: "dns"; readonly hostname: string }
  /** 4 or 16 bytes, network order. */
  | { readonly kind: "ip"; readonly bytes: Uint8Array };

/** For what a leaf may be used in TLS. */
export type LeafPurpose = "server" | "client";

export interface LeafContent {
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKeyDer: Uint8Array;
  /** Empty leaves the extension out. */
  readonly names: readonly AlternativeName[];
  /** Extended key usage; empty leaves the extension out. */
  readonly purposes: readonly LeafPurpose[];
  /** Milliseconds since the epoch; X.509 keeps whole seconds. */
  readonly notBeforeAt: number;
  readonly notAfterAt: number;
}

export interface CaContent {
  /** The subject's O attribute. */
  readonly organization: string;
  readonly notBeforeAt: number;
  readonly notAfterAt: number;
}

/** A certificate that may sign others, with its key. */
export interface SigningCertificate {
  readonly pem: string;
  readonly certificate: Certificate;
  readonly privateKey: webcrypto.CryptoKey;
}

export type KeyPair = webcrypto.CryptoKeyPair;

const OID = {
  organization: "2.5.4.10",
  subjectKeyIdentifier: "2.5.29.14",
  keyUsage: "2.5.29.15",
  subjectAltName: "2.5.29.17",
  basicConstraints: "2.5.29.19",
  authorityKeyIdentifier: "2.5.29.35",
  extendedKeyUsage: "2.5.29.37",
} as const;

const PURPOSE_OID: Readonly<Record<LeafPurpose, string>> = {
  server: "1.3.6.1.5.5.7.3.1",
  client: "1.3.6.1.5.5.7.3.2",
};

/** Bits of KeyUsage (RFC 5280 section 4.2.1.3), most significant first, with their unused bits. */
const KEY_USAGE_LEAF = { bits: 0b1010_0000, unused: 5 };
const KEY_USAGE_CA = { bits: 0b0000_0100, unused: 2 };

/** 128 random bits, as many as istiod uses. */
const SERIAL_BYTES = 16;

/** A fresh P-256 pair. */
export function generateKeyPair(): Promise<KeyPair> {
  return webcrypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, [
    "sign",
    "verify",
  ]) as Promise<KeyPair>;
}

/** @param issuer signs; `undefined` makes a root. */
export async function buildCa(
  content: CaContent,
  keys: KeyPair,
  issuer?: SigningCertificate,
): Promise<SigningCertificate> {
  const certificate = new Certificate();
  await certificate.subjectPublicKeyInfo.importKey(keys.publicKey);
  certificate.subject.typesAndValues.push(
    new AttributeTypeAndValue({
      type: OID.organization,
      value: new Utf8String({ value: content.organization }),
    }),
  );
  const keyId = await certificate.getKeyHash();
  certificate.extensions = [
    keyUsage(KEY_USAGE_CA),
    extension(OID.basicConstraints, true, new BasicConstraints({ cA: true })),
    new Extension({
      extnID: OID.subjectKeyIdentifier,
      extnValue: new OctetString({ valueHex: keyId }).toBER(),
    }),
  ];
  if (issuer !== undefined) certificate.extensions.push(await authorityKeyId(issuer));
  const subject = issuer?.certificate.subject ?? certificate.subject;
  await seal(certificate, content, subject, issuer?.privateKey ?? keys.privateKey);
  return { pem: certificatePem(certificate), certificate, privateKey: keys.privateKey };
}

/** A name of no parts, DER. pkijs itself writes one empty part, which BoringSSL does not read. */
const EMPTY_NAME = Uint8Array.of(0x30, 0x00);

/** @returns PEM; the subject is empty and the SAN critical, as SPIFFE asks. */
export async function buildLeaf(content: LeafContent, issuer: SigningCertificate): Promise<string> {
  const certificate = new Certificate();
  certificate.subject = RelativeDistinguishedNames.fromBER(EMPTY_NAME);
  certificate.subjectPublicKeyInfo = PublicKeyInfo.fromBER(exactBuffer(content.publicKeyDer));
  certificate.extensions = [keyUsage(KEY_USAGE_LEAF)];
  if (content.purposes.length > 0) {
    const usage = new ExtKeyUsage({ keyPurposes: content.purposes.map((p) => PURPOSE_OID[p]) });
    certificate.extensions.push(extension(OID.extendedKeyUsage, false, usage));
  }
  certificate.extensions.push(
    extension(OID.basicConstraints, true, new BasicConstraints()),
    await authorityKeyId(issuer),
  );
  if (content.names.length > 0) {
    const names = new GeneralNames({ names: content.names.map(generalName) });
    certificate.extensions.push(extension(OID.subjectAltName, true, names));
  }
  await seal(certificate, content, issuer.certificate.subject, issuer.privateKey);
  return certificatePem(certificate);
}

/** Validity, issuer, serial number and signature: what every certificate ends with. */
async function seal(
  certificate: Certificate,
  validity: { readonly notBeforeAt: number; readonly notAfterAt: number },
  issuerName: RelativeDistinguishedNames,
  privateKey: webcrypto.CryptoKey,
): Promise<void> {
  certificate.version = 2;
  const serial = randomBytes(SERIAL_BYTES);
  // A positive number without leading zeros: DER knows one spelling only.
  serial[0] = ((serial[0] as number) & 0x7f) | 0x40;
  certificate.serialNumber = new Integer({ valueHex: exactBuffer(serial) });
  certificate.issuer = issuerName;
  certificate.notBefore = time(validity.notBeforeAt);
  certificate.notAfter = time(validity.notAfterAt);
  await certificate.sign(privateKey, "SHA-256");
}

/** UTCTime until 2049, GeneralizedTime from 2050 (RFC 5280 section 4.1.2.5). */
function time(at: number): Time {
  const value = new Date(at);
  const type = value.getUTCFullYear() < 2050 ? TimeType.UTCTime : TimeType.GeneralizedTime;
  return new Time({ type, value });
}

function generalName(name: AlternativeName): GeneralName {
  switch (name.kind) {
    case "uri":
      return new GeneralName({ type: 6, value: name.uri });
    case "dns":
      return new GeneralName({ type: 2, value: name.hostname });
    case "ip":
      return new GeneralName({
        type: 7,
        value: new OctetString({ valueHex: exactBuffer(name.bytes) }),
      });
  }
}

function keyUsage(usage: { readonly bits: number; readonly unused: number }): Extension {
  const bits = new BitString({
    valueHex: exactBuffer(Uint8Array.of(usage.bits)),
    unusedBits: usage.unused,
  });
  return new Extension({ extnID: OID.keyUsage, critical: true, extnValue: bits.toBER() });
}

async function authorityKeyId(issuer: SigningCertificate): Promise<Extension> {
  const keyIdentifier = new OctetString({ valueHex: await issuer.certificate.getKeyHash() });
  const identifier = new AuthorityKeyIdentifier({ keyIdentifier });
  return extension(OID.authorityKeyIdentifier, false, identifier);
}

function extension(
  extnID: string,
  critical: boolean,
  content: { toSchema(): { toBER(): ArrayBuffer } },
): Extension {
  return new Extension({ extnID, critical, extnValue: content.toSchema().toBER() });
}

function certificatePem(certificate: Certificate): string {
  return formatPem("CERTIFICATE", new Uint8Array(certificate.toSchema().toBER()));
}

/** pkijs takes whole buffers; a Buffer may be a window into a shared pool. */
function exactBuffer(bytes: Uint8Array): ArrayBuffer {
  return new Uint8Array(bytes).buffer;
}
