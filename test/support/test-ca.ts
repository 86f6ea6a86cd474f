/**
 * Quick certificates for tests: good ones, and every bad kind that a peer may show.
 *
 * A wrong authority: `other.certificate(identity, { trustedRootPem: ca.rootPem })` is a leaf of
 * `other` whose holder itself trusts `ca`.
 */
import { webcrypto } from "node:crypto";
import {
  type AlternativeName,
  buildCa,
  buildLeaf,
  generateKeyPair,
  type LeafPurpose,
  type SigningCertificate,
} from "../../src/embedded/certificate-builder.ts";
import { formatSpiffeId, type Identity } from "../../src/mesh/identity.ts";
import type { WorkloadCertificate } from "../../src/mesh/workload-certificate.ts";
import { formatPem } from "../../src/tls/pem.ts";

const HOUR_MS = 3_600_000;

export interface CertificateOverrides {
  /** Milliseconds since the epoch; default an hour ago. */
  readonly notBeforeAt?: number;
  /** Milliseconds since the epoch; default in a day. */
  readonly notAfterAt?: number;
  /** Instead of the identity's URI; `[]` leaves the SAN out. See {@link uriName}, {@link dnsName}. */
  readonly names?: readonly AlternativeName[];
  /** Default both; `[]` leaves the extended key usage out. */
  readonly purposes?: readonly LeafPurpose[];
  /** Signed with its own key, in the name of nobody known. */
  readonly selfSigned?: boolean;
  /** Signed by an intermediate, which follows in the chain; by the last of so many in a row. */
  readonly intermediate?: boolean | number;
  /** What the holder trusts; default the root of this authority. */
  readonly trustedRootPem?: string;
}

export interface TestCa {
  /** One PEM block. */
  readonly rootPem: string;
  certificate(identity: Identity, overrides?: CertificateOverrides): Promise<WorkloadCertificate>;
  /** The root, or the intermediate of this PEM, to sign by hand with. */
  signer(pem?: string): SigningCertificate;
}

/** Expired an hour ago. */
export function expired(): CertificateOverrides {
  const now = Date.now();
  return { notBeforeAt: now - 2 * HOUR_MS, notAfterAt: now - HOUR_MS };
}

/** Valid from the next hour on. */
export function notYetValid(): CertificateOverrides {
  const now = Date.now();
  return { notBeforeAt: now + HOUR_MS, notAfterAt: now + 2 * HOUR_MS };
}

export function uriName(uri: string): AlternativeName {
  return { kind: "uri", uri };
}

export function dnsName(hostname: string): AlternativeName {
  return { kind: "dns", hostname };
}

/** `spiffe://cluster.local/ns/<namespace>/sa/<serviceAccount>` unless told otherwise. */
export function testIdentity(
  serviceAccount: string,
  namespace = "default",
  trustDomain = "cluster.local",
): Identity {
  return { trustDomain, namespace, serviceAccount };
}

/** A new authority with its own root; real keys, P-256. */
export async function testCa(options: { now?: () => number } = {}): Promise<TestCa> {
  const now = options.now ?? Date.now;
  const longValidity = () => ({
    notBeforeAt: now() - 24 * HOUR_MS,
    notAfterAt: now() + 3650 * 24 * HOUR_MS,
  });
  const root = await newCa("test root");

  async function newCa(
    organization: string,
    issuer?: SigningCertificate,
  ): Promise<SigningCertificate> {
    return buildCa({ organization, ...longValidity() }, await generateKeyPair(), issuer);
  }

  const signers = new Map([[root.pem, root]]);
  return {
    rootPem: root.pem,
    signer(pem = root.pem) {
      const signer = signers.get(pem);
      if (signer === undefined) throw new Error("no signer of this authority");
      return signer;
    },
    async certificate(identity, overrides = {}) {
      const keys = await generateKeyPair();
      /** The leaf's issuer first. */
      const intermediates: SigningCertificate[] = [];
      for (let i = 0; i < Number(overrides.intermediate ?? 0); i++) {
        const made = await newCa("test intermediate", intermediates[0] ?? root);
        intermediates.unshift(made);
        signers.set(made.pem, made);
      }
      const issuer = overrides.selfSigned
        ? await buildCa({ organization: "nobody", ...longValidity() }, keys)
        : (intermediates[0] ?? root);
      const notBeforeAt = overrides.notBeforeAt ?? now() - HOUR_MS;
      const notAfterAt = overrides.notAfterAt ?? now() + 24 * HOUR_MS;
      const leaf = await buildLeaf(
        {
          publicKeyDer: new Uint8Array(await webcrypto.subtle.exportKey("spki", keys.publicKey)),
          names: overrides.names ?? [uriName(formatSpiffeId(identity))],
          purposes: overrides.purposes ?? ["server", "client"],
          notBeforeAt,
          notAfterAt,
        },
        issuer,
      );
      const pkcs8 = await webcrypto.subtle.exportKey("pkcs8", keys.privateKey);
      return {
        identity,
        chainPem: [leaf, ...intermediates.map(({ pem }) => pem)],
        privateKeyPem: formatPem("PRIVATE KEY", new Uint8Array(pkcs8)),
        rootsPem: [overrides.trustedRootPem ?? root.pem],
        notBeforeAt,
        notAfterAt,
      };
    },
  };
}
