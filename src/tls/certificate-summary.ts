/** What operators are shown of a certificate, in the shape of `/config_dump`. */
import { X509Certificate } from "node:crypto";
import { formatPem } from "./pem.ts";

/** Of the PEM in a dump, whatever those of the authority were. @see spec control-plane 12.38. */
const LINE_LENGTH = 60;

/** @see spec control-plane 7.2. */
export interface CertificateSummary {
  /** RFC 3339, whole seconds, `Z`. */
  readonly expirationTime: string;
  /** The PEM text once more in base64, its lines as long as the original's. */
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
    pem: Buffer.from(formatPem("CERTIFICATE", x509.raw, LINE_LENGTH)).toString("base64"),
    serialNumber: BigInt(`0x${x509.serialNumber}`).toString(),
    validFrom: formatSeconds(x509.validFromDate),
  };
}

function formatSeconds(instant: { toISOString(): string }): string {
  return instant.toISOString().replace(/\.\d+Z$/, "Z");
}
