/** Certificates, keys and roots as the reactor's TLS uses them. */
import { addon } from "./addon.ts";

/** How tunnels prove who they are and whom they trust; for both roles. */
export interface TlsContextOptions {
  /** The leaf, then the intermediates. */
  readonly chainPem: string;
  readonly keyPem: string;
  /** Any number of roots; each is trusted also when somebody else signed it. Without any, nobody is. */
  readonly rootsPem: string;
  /** Also allow TLS 1.2. */
  readonly tls12: boolean;
  /**
   * In OpenSSL's notation, `X25519:P-256:?X25519MLKEM768`. A name that it does not know is an error;
   * optional ones, marked by `?` and last in the list, are left out.
   */
  readonly groups: string;
}

/** A certificate with its key, and whom it trusts; lives as long as somebody holds it. */
export type TlsContext = object;

const {
  makeTlsContext: makeNative,
  configureTls,
  tlsText,
} = addon as {
  /** For both roles, without anything that is configured. */
  makeTlsContext(): TlsContext;
  /**
   * @param name `chain` or `root`, once for each certificate, or `key`, all three as DER, the key after
   *   the leaf; otherwise a command of OpenSSL's SSL_CONF_cmd().
   * @returns one of OpenSSL's errors; 0: it is used; negative: it is not, for no known reason.
   */
  configureTls(context: TlsContext, name: Uint8Array, value: Uint8Array): number;
  tlsText(error: number): string;
};

const SUITES_13 = "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256";
const SUITES_12 = [
  "ECDHE-ECDSA-AES256-GCM-SHA384",
  "ECDHE-ECDSA-AES128-GCM-SHA256",
  "ECDHE-RSA-AES256-GCM-SHA384",
  "ECDHE-RSA-AES128-GCM-SHA256",
].join(":");

/**
 * No compressed certificates (RFC 8879): Brotli takes twice the time of all the rest of a handshake to
 * save a hundred bytes. OpenSSL before 3.2 has none.
 */
const NO_COMPRESSION = ",-TxCertificateCompression,-RxCertificateCompression";

/** One block of a certificate or of a key that is not encrypted (RFC 7468). */
const BLOCK = /-----BEGIN ((?:[A-Z]+ )?(?:CERTIFICATE|PRIVATE KEY))-----([^-]*)-----END \1-----/g;

/** @throws Error naming the option and what is wrong with it, in OpenSSL's words where it was asked. */
export function makeTlsContext(options: TlsContextOptions): TlsContext {
  const context = makeNative();
  for (const [name, value] of Object.entries(settingsFor(options, process.versions.openssl))) {
    configure(context, name, Buffer.from(value));
  }
  const { chainPem, keyPem, rootsPem } = options;
  for (const der of dersOf("chainPem", chainPem)) configure(context, "chain", der);
  for (const der of dersOf("keyPem", keyPem)) configure(context, "key", der);
  const roots = rootsPem === "" ? [] : dersOf("rootsPem", rootsPem);
  for (const der of roots) configure(context, "root", der);
  return context;
}

function configure(context: TlsContext, name: string, value: Uint8Array): void {
  const error = configureTls(context, Buffer.from(name), value);
  if (error !== 0)
    throw new Error(`${name}: ${error > 0 ? tlsText(error) : "unknown TLS failure"}`);
}

/** Commands of SSL_CONF_cmd() and their values. */
function settingsFor(
  { tls12, groups }: TlsContextOptions,
  opensslVersion: string,
): Readonly<Record<string, string>> {
  return {
    MinProtocol: tls12 ? "TLSv1.2" : "TLSv1.3",
    Ciphersuites: SUITES_13,
    CipherString: SUITES_12,
    // Before OpenSSL 3.3 there are no optional groups, and none of those that came later.
    Groups: /^3\.[0-2]\./.test(opensslVersion) ? groups.replace(/:\?.*/, "") : groups,
    VerifyMode: "Require",
    Options: `-SessionTicket,NoRenegotiation${/^3\.[01]\./.test(opensslVersion) ? "" : NO_COMPRESSION}`,
  };
}

/** @returns what each block contains. */
function dersOf(name: string, pem: string): readonly Uint8Array[] {
  const blocks = [...pem.matchAll(BLOCK)];
  if (blocks.length === 0) throw new Error(`${name}: no PEM block`);
  return blocks.map(([, , base64 = ""]) => Buffer.from(base64, "base64"));
}
