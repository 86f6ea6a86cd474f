/**
 * What a certificate authority answered, checked and cut into the parts that a handshake needs.
 *
 * @see spec control-plane 5.4.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { formatSpiffeId, type Identity, parseSpiffeId } from "../mesh/identity.ts";
import type { WorkloadCertificate } from "../mesh/workload-certificate.ts";
import { type PemBlock, pemBlocks } from "./pem.ts";
import { subjectAltUris } from "./subject-alternative-name.ts";
import { TlsError } from "./tls-error.ts";

export interface CertificateChainOptions {
  /**
   * Whether the leaf has to be for the requested identity. False in dedicated mode, where the
   * authority decides who we are.
   */
  readonly checkIdentity: boolean;
  /** Told about roots that are left out, and about a leaf that none of them vouches for. */
  readonly warn: (message: string) => void;
}

/**
 * @param chain leaf, intermediates, and one element with all roots; PEM.
 * @param privateKeyPem the key for which the leaf was asked.
 * @returns the identity is that of the leaf, or the requested one when the leaf has none.
 * @throws TlsError with every code but `request` and `bad-roots`.
 */
export function parseCertificateResponse(
  chain: readonly string[],
  privateKeyPem: string,
  identity: Identity,
  options: CertificateChainOptions,
): WorkloadCertificate {
  const [leafText, ...rest] = chain;
  const rootsText = rest.pop();
  if (leafText === undefined) {
    throw new TlsError(
      "incomplete-chain",
      `chain returned from CA is empty for: ${formatSpiffeId(identity)}`,
    );
  }
  if (rootsText === undefined) throw noRoot(identity);
  const leaf = firstCertificate(leafText, "leaf");
  const intermediates = rest.map((text, i) => firstCertificate(text, `intermediate ${i + 1}`));
  const roots = rootCertificates(rootsText, options.warn);
  if (roots.length === 0) throw noRoot(identity);
  if (!leaf.x509.checkPrivateKey(parsePrivateKey(privateKeyPem))) {
    throw new TlsError(
      "bad-key",
      `the certificate for ${formatSpiffeId(identity)} is not for the requested key`,
    );
  }
  if (!isVouchedFor(leaf.x509, intermediates, roots)) {
    // Refused by peers with the same roots; others may know better.
    options.warn(
      `no root in the chain vouches for the certificate of: ${formatSpiffeId(identity)}`,
    );
  }
  return {
    identity: leafIdentity(leaf.x509, identity, options.checkIdentity),
    chainPem: [leaf, ...intermediates].map(({ pem }) => pem),
    privateKeyPem,
    rootsPem: roots.map(({ pem }) => pem),
    notBeforeAt: leaf.x509.validFromDate.getTime(),
    notAfterAt: leaf.x509.validToDate.getTime(),
  };
}

interface ParsedCertificate {
  readonly pem: string;
  readonly x509: X509Certificate;
}

function noRoot(identity: Identity): TlsError {
  return new TlsError(
    "incomplete-chain",
    `no root certificate present in the chain for: ${formatSpiffeId(identity)}`,
  );
}

function leafIdentity(leaf: X509Certificate, requested: Identity, check: boolean): Identity {
  const [uri] = subjectAltUris(leaf.raw);
  const wanted = formatSpiffeId(requested);
  if (uri === wanted) return requested;
  if (check) throw new TlsError("wrong-identity", `did not find expected SAN: ${wanted}`);
  return (uri === undefined ? undefined : parseSpiffeId(uri)) ?? requested;
}

/** What follows the first block of an element is ignored. */
function firstCertificate(text: string, what: string): ParsedCertificate {
  const [block] = pemBlocks(text);
  if (block === undefined) throw new TlsError("bad-certificate", `${what} is not PEM`);
  return parseBlock(block, what);
}

function rootCertificates(
  text: string,
  warn: (message: string) => void,
): readonly ParsedCertificate[] {
  const all = pemBlocks(text).map((block, i) => parseBlock(block, `root ${i + 1}`));
  const usable = all.filter(({ x509 }) => canAnchor(x509));
  if (usable.length < all.length) warn(`found ${all.length - usable.length} invalid root certs`);
  return usable;
}

/** Whether signatures lead from the leaf to a root, through intermediates in whatever order. */
function isVouchedFor(
  leaf: X509Certificate,
  intermediates: readonly ParsedCertificate[],
  roots: readonly ParsedCertificate[],
): boolean {
  const left = new Set(intermediates);
  let current = leaf;
  const isIssuer = ({ x509 }: ParsedCertificate): boolean =>
    current.checkIssued(x509) && current.verify(x509.publicKey);
  while (!roots.some(isIssuer)) {
    const next = [...left].find(isIssuer);
    if (next === undefined) return false;
    left.delete(next);
    current = next.x509;
  }
  return true;
}

/** An authority, or a certificate that vouches for itself. */
function canAnchor(x509: X509Certificate): boolean {
  return x509.ca || x509.checkIssued(x509);
}

function parseBlock(block: PemBlock, what: string): ParsedCertificate {
  if (block.label !== "CERTIFICATE") {
    throw new TlsError("bad-certificate", `${what} is PEM of ${block.label}, not of CERTIFICATE`);
  }
  try {
    return { pem: block.text, x509: new X509Certificate(block.text) };
  } catch (cause) {
    throw new TlsError("bad-certificate", `${what} is not an X.509 certificate`, { cause });
  }
}

function parsePrivateKey(pem: string): KeyObject {
  const [block] = pemBlocks(pem);
  if (block?.label !== "PRIVATE KEY") throw new TlsError("bad-key", "private key is not PKCS#8");
  try {
    return createPrivateKey(block.text);
  } catch (cause) {
    throw new TlsError("bad-key", "private key can't be read", { cause });
  }
}
