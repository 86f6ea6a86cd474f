/**
 * How a control plane is recognised: server-only TLS with roots of the operator's choice.
 *
 * @see spec control-plane 1.1 and 6.3.
 */
import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import {
  checkServerIdentity,
  createSecureContext,
  getCACertificates,
  type PeerCertificate,
  type SecureContext,
} from "node:tls";
import { type PemBlock, pemBlocks } from "./pem.ts";
import { TlsError } from "./tls-error.ts";

/** Where the accepted roots come from. */
export type TrustedRoots =
  /** Read anew whenever it is asked for, so that a rotated file takes effect. */
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "pem"; readonly pem: string }
  /** The operating system's store. */
  | { readonly kind: "system" };

export interface ControlPlaneTlsOptions {
  /** Also allow TLS 1.2 (`TLS12_ENABLED`). */
  readonly tls12: boolean;
  /** Only X25519MLKEM768 (`COMPLIANCE_POLICY=pqc`). */
  readonly postQuantumOnly: boolean;
}

const SUITES_13 = ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"];
const SUITES_12 = [
  "ECDHE-ECDSA-AES256-GCM-SHA384",
  "ECDHE-ECDSA-AES128-GCM-SHA256",
  "ECDHE-RSA-AES256-GCM-SHA384",
  "ECDHE-RSA-AES128-GCM-SHA256",
];

/**
 * The accepted roots as PEM text.
 *
 * @throws TlsError `bad-roots` when there is none to be found.
 */
export async function readTrustedRoots(roots: TrustedRoots): Promise<string> {
  switch (roots.kind) {
    case "file":
      try {
        return withCertificates(await readFile(roots.path, "utf8"), roots.path);
      } catch (cause) {
        if (cause instanceof TlsError) throw cause;
        throw new TlsError("bad-roots", `can't read root certificates from ${roots.path}`, {
          cause,
        });
      }
    case "pem":
      return withCertificates(roots.pem, "the configured text, which is no existing file either");
    case "system":
      return getCACertificates("system").join("\n");
  }
}

/** @throws TlsError `bad-roots` when the text holds something else than certificates. */
export function controlPlaneContext(
  rootsPem: string,
  options: ControlPlaneTlsOptions,
): SecureContext {
  try {
    return createSecureContext({
      ca: rootsPem,
      minVersion: options.tls12 ? "TLSv1.2" : "TLSv1.3",
      ciphers: [...SUITES_13, ...(options.tls12 ? SUITES_12 : [])].join(":"),
      ...(options.postQuantumOnly ? { ecdhCurve: "X25519MLKEM768" } : {}),
    });
  } catch (cause) {
    throw new TlsError("bad-roots", "root certificates can't be used", { cause });
  }
}

/**
 * Whether a server whose chain is trusted has one of the names.
 *
 * @param names the first is the one that was dialled; its error is the one that is told.
 */
export function checkServerNames(
  names: readonly [string, ...string[]],
  certificate: PeerCertificate,
): Error | undefined {
  const errors = names.map((name) => checkServerIdentity(name, certificate));
  return errors.includes(undefined) ? undefined : errors[0];
}

/** Node's TLS takes text without any certificate, and then trusts nobody. */
function withCertificates(text: string, where: string): string {
  if (pemBlocks(text).some(isCertificate)) return text;
  throw new TlsError("bad-roots", `no root certificate in ${where}`);
}

function isCertificate({ label, text }: PemBlock): boolean {
  if (label !== "CERTIFICATE") return false;
  try {
    return new X509Certificate(text).raw.length > 0;
  } catch {
    return false;
  }
}
