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

const { makeTlsContext: makeNative } = addon as {
  /** @param settings values of OpenSSL's configuration commands. */
  makeTlsContext(
    settings: Readonly<Record<"MinProtocol" | "Ciphersuites" | "CipherString" | "Groups", string>>,
    chain: Uint8Array,
    key: Uint8Array,
    roots: Uint8Array,
  ): TlsContext;
};

const SUITES_13 = "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256";
const SUITES_12 = [
  "ECDHE-ECDSA-AES256-GCM-SHA384",
  "ECDHE-ECDSA-AES128-GCM-SHA256",
  "ECDHE-RSA-AES256-GCM-SHA384",
  "ECDHE-RSA-AES128-GCM-SHA256",
].join(":");

/** One block of a certificate or of a key that is not encrypted (RFC 7468). */
const BLOCK = /-----BEGIN ((?:[A-Z]+ )?(?:CERTIFICATE|PRIVATE KEY))-----([^-]*)-----END \1-----/g;

/** @throws Error naming the option and what is wrong with it, in OpenSSL's words where it was asked. */
export function makeTlsContext(options: TlsContextOptions): TlsContext {
  const settings = {
    MinProtocol: options.tls12 ? "TLSv1.2" : "TLSv1.3",
    Ciphersuites: SUITES_13,
    CipherString: SUITES_12,
    Groups: groupsFor(options.groups, process.versions.openssl),
  };
  const roots = options.rootsPem === "" ? new Uint8Array() : derOf("rootsPem", options.rootsPem);
  return makeNative(
    settings,
    derOf("chainPem", options.chainPem),
    derOf("keyPem", options.keyPem),
    roots,
  );
}

/** Before OpenSSL 3.3 there are no optional groups, and none of those that came later. */
function groupsFor(groups: string, opensslVersion: string): string {
  return /^3\.[0-2]\./.test(opensslVersion) ? groups.replace(/:\?.*/, "") : groups;
}

/** @returns what the blocks contain, one after the other: DER says its own length. */
function derOf(name: string, pem: string): Uint8Array {
  const blocks = [...pem.matchAll(BLOCK)];
  if (blocks.length === 0) throw new Error(`${name}: no PEM block`);
  return Buffer.concat(blocks.map(([, , base64 = ""]) => Buffer.from(base64, "base64")));
}
