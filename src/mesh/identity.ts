/**
 * Who a workload is: its SPIFFE identity.
 *
 * @see spec control-plane 5.1 for the accepted form.
 */

/** Components may be empty strings; none contains a slash. */
export interface Identity {
  readonly trustDomain: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

const SCHEME = "spiffe://";

/** `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`. */
export function formatSpiffeId(identity: Identity): string {
  return `${SCHEME}${identity.trustDomain}/ns/${identity.namespace}/sa/${identity.serviceAccount}`;
}

/** @returns `undefined` unless the URI has exactly the five parts of {@link formatSpiffeId}. */
export function parseSpiffeId(uri: string): Identity | undefined {
  if (!uri.startsWith(SCHEME)) return undefined;
  const parts = uri.slice(SCHEME.length).split("/");
  if (parts.length !== 5 || parts[1] !== "ns" || parts[3] !== "sa") return undefined;
  return {
    trustDomain: parts[0] as string,
    namespace: parts[2] as string,
    serviceAccount: parts[4] as string,
  };
}

/** True when all three parts are the same. */
export function sameIdentity(a: Identity, b: Identity): boolean {
  return (
    a.trustDomain === b.trustDomain &&
    a.namespace === b.namespace &&
    a.serviceAccount === b.serviceAccount
  );
}
