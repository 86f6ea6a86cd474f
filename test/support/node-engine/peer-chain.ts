/** The chain of a peer as Node shows it: leaf to root, DER one after the other. */
import type { DetailedPeerCertificate } from "node:tls";

export function peerChain(leaf: DetailedPeerCertificate): Uint8Array {
  const links: Buffer[] = [];
  let next: DetailedPeerCertificate | undefined = leaf;
  while (next?.raw !== undefined) {
    links.push(next.raw);
    // A root is its own issuer.
    next = next.issuerCertificate === next ? undefined : next.issuerCertificate;
  }
  return Buffer.concat(links);
}
