/** What operators are shown of a certificate, in the shape of `/config_dump`. */
import { X509Certificate } from "node:crypto";

/** @see spec control-plane 7.2. */
export interface CertificateSummary {
  /** RFC 3339, whole seconds, `Z`. */
  readonly expirationTime: string;
  /** The PEM text once more in base64. */
  readonly pem: string;
  /** Decimal. */
  readonly serialNumber: string;
  /** RFC 3339, whole seconds, `Z`. */
  readonly validFrom: string;
}

/** @param pem one certificate that is known to parse. */
export function summarizeCertificate(pem: string): CertificateSummary {
  const x509 = new X509Certificate(pem);
  return {
    expirationTime: formatSeconds(x509.validToDate),
    pem: Buffer.from(pem).toString("base64"),
    serialNumber: BigInt(`0x${x509.serialNumber}`).toString(),
    validFrom: formatSeconds(x509.validFromDate),
  };
}

function formatSeconds(instant: { toISOString(): string }): string {
  return instant.toISOString().replace(/\.\d+Z$/, "Z");
}
