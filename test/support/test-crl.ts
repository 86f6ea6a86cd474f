/** Certificate revocation lists for tests. */
import {
  Certificate,
  CertificateRevocationList,
  type Extension,
  Extensions,
  RevokedCertificate,
  Time,
} from "pkijs";
import type { SigningCertificate } from "../../src/embedded/certificate-builder.ts";
import { formatPem } from "../../src/tls/pem.ts";

export interface CrlOverrides {
  /** Milliseconds since the epoch. */
  readonly nextUpdateAt?: number;
  readonly extensions?: readonly Extension[];
  readonly entryExtensions?: readonly Extension[];
  /** Instead of the issuer's. */
  readonly signedBy?: SigningCertificate;
}

/** @param revoked certificates, PEM. @returns DER. */
export async function buildCrl(
  issuer: SigningCertificate,
  revoked: readonly string[],
  overrides: CrlOverrides = {},
): Promise<Uint8Array> {
  const list = new CertificateRevocationList({ version: 1 });
  list.issuer = issuer.certificate.subject;
  list.thisUpdate = new Time({ value: new Date(Date.now() - 60_000) });
  list.nextUpdate = new Time({ value: new Date(overrides.nextUpdateAt ?? Date.now() + 60_000) });
  const { extensions, entryExtensions } = overrides;
  if (revoked.length > 0) {
    list.revokedCertificates = revoked.map((pem) => {
      const entry = new RevokedCertificate({
        userCertificate: certificateOf(pem).serialNumber,
        revocationDate: new Time({ value: new Date() }),
      });
      if (entryExtensions !== undefined) {
        entry.crlEntryExtensions = new Extensions({ extensions: [...entryExtensions] });
      }
      return entry;
    });
  }
  if (extensions !== undefined) {
    list.crlExtensions = new Extensions({ extensions: [...extensions] });
  }
  await list.sign((overrides.signedBy ?? issuer).privateKey, "SHA-256");
  return new Uint8Array(list.toSchema(true).toBER());
}

export function crlPem(der: Uint8Array): string {
  return formatPem("X509 CRL", der);
}

/** What a verified chain looks like to a revocation check. @param pems leaf to root. */
export function chainDer(pems: readonly string[]): Uint8Array {
  return Buffer.concat(pems.map(derOf));
}

function certificateOf(pem: string): Certificate {
  return Certificate.fromBER(new Uint8Array(derOf(pem)).buffer);
}

export function derOf(pem: string): Buffer {
  return Buffer.from(pem.replaceAll(/-----[^-]*-----/g, ""), "base64");
}
