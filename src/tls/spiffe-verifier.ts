/**
 * Who a TLS peer says it is, and whether that is whom we expect. Runs after the chain was verified,
 * in data threads, so it loads no X.509 library.
 *
 * @see spec data-path 3.1 and 4.1 for rules and texts.
 */
import { formatSpiffeId, type Identity, parseSpiffeId, sameIdentity } from "../mesh/identity.ts";
import { subjectAltUris } from "./subject-alternative-name.ts";

/** Judges a peer whose chain is already trusted. @returns why it is refused, or `undefined`. */
export type VerifyPeer = (chain: { readonly leafDer: Uint8Array }) => string | undefined;

/** The SPIFFE IDs among the leaf's URI SANs, in order; other names are skipped. */
export function peerIdentities(leafDer: Uint8Array): readonly Identity[] {
  return subjectAltUris(leafDer)
    .map(parseSpiffeId)
    .filter((identity) => identity !== undefined);
}

/** The peer has to be one of these. */
export function expectIdentity(expected: readonly Identity[]): VerifyPeer {
  return ({ leafDer }) => {
    const got = peerIdentities(leafDer);
    if (got.some((id) => expected.some((wanted) => sameIdentity(wanted, id)))) return undefined;
    return (
      `identity verification error: peer did not present the expected SAN (${formatList(expected)}), ` +
      `got ${formatList(got)}`
    );
  };
}

/**
 * The peer has to be of this trust domain.
 *
 * @param aliases further trust domains that are as good; the original knows none.
 */
export function expectTrustDomain(trustDomain: string, aliases: readonly string[]): VerifyPeer {
  const accepted = new Set([trustDomain, ...aliases]);
  return ({ leafDer }) => {
    const got = peerIdentities(leafDer);
    if (got.some((id) => accepted.has(id.trustDomain))) return undefined;
    return (
      "Custom { kind: InvalidData, error: InvalidCertificate(Other(OtherError(" +
      `SanTrustDomainError("${trustDomain}", [${got.map(debugForm).join(", ")}])))) }`
    );
  };
}

/** As the original prints it, like all that fails in a server's handshake. */
function debugForm({ trustDomain, namespace, serviceAccount }: Identity): string {
  return (
    `Spiffe { trust_domain: "${trustDomain}", namespace: "${namespace}", ` +
    `service_account: "${serviceAccount}" }`
  );
}

function formatList(identities: readonly Identity[]): string {
  return identities.map(formatSpiffeId).join(",");
}
