/**
 * Whether somebody in a chain is revoked. Only what a list says counts: a chain whose issuers have no
 * list is good, and so is what an outdated list does not name. Runs in data threads.
 *
 * @see spec control-plane 5.10.
 */
import { verify, X509Certificate } from "node:crypto";
import { children, childrenOf, type Element } from "./der.ts";
import { hasSerial, type RevocationList, serialHex, wholeHex } from "./revocation-list.ts";

/** One certificate of a verified chain. */
interface Link {
  readonly der: Uint8Array;
  readonly serial: string;
  /** DER of the issuer's name, hexadecimal. */
  readonly issuer: string;
}

const TAG = { integer: 0x02, sequence: 0x30, version: 0xa0 } as const;

export class Revocations {
  readonly #byIssuer: ReadonlyMap<string, readonly RevocationList[]>;
  /** Whether a list is signed by a certificate; the key is its DER as latin1. */
  readonly #signed = new Map<RevocationList, Map<string, boolean>>();

  constructor(lists: readonly RevocationList[]) {
    this.#byIssuer = Map.groupBy(lists, ({ issuer }) => issuer);
  }

  /**
   * @param chainDer from a leaf to a trusted root, DER one after the other; the root itself can't be
   *   revoked.
   */
  isRevoked(chainDer: Uint8Array): boolean {
    if (this.#byIssuer.size === 0) return false;
    const links = chainLinks(chainDer) ?? [];
    return links.some((link, i) => {
      const issuer = links[i + 1];
      const lists = issuer === undefined ? [] : (this.#byIssuer.get(link.issuer) ?? []);
      return lists.some(
        (list) =>
          issuer !== undefined &&
          hasSerial(list.serials, link.serial) &&
          this.#isSignedBy(list, issuer.der),
      );
    });
  }

  /** A revoked peer that comes again and again must not cost a signature each time. */
  #isSignedBy(list: RevocationList, issuerDer: Uint8Array): boolean {
    const known = this.#signed.get(list) ?? new Map<string, boolean>();
    this.#signed.set(list, known);
    const key = Buffer.from(issuerDer).toString("latin1");
    const isSigned = known.get(key) ?? isSignedBy(list, issuerDer);
    known.set(key, isSigned);
    return isSigned;
  }
}

/** Whether {@link Revocations.isRevoked} can tell anything of the chain. */
export function isReadableChain(chainDer: Uint8Array): boolean {
  const links = chainLinks(chainDer);
  return links !== undefined && links.length > 1;
}

function chainLinks(chainDer: Uint8Array): readonly Link[] | undefined {
  const links = children(chainDer, 0, chainDer.length)?.map((element) => linkOf(chainDer, element));
  return links?.every((link) => link !== undefined) ? links : undefined;
}

/** TBSCertificate: `[0] version?, serialNumber, signature, issuer, …` */
function linkOf(bytes: Uint8Array, certificate: Element): Link | undefined {
  const [toBeSigned] = childrenOf(bytes, certificate) ?? [];
  const parts = childrenOf(bytes, toBeSigned) ?? [];
  const skipped = parts[0]?.tag === TAG.version ? 1 : 0;
  const serial = parts[skipped];
  const issuer = parts[skipped + 2];
  if (serial?.tag !== TAG.integer || issuer?.tag !== TAG.sequence) return undefined;
  return {
    der: bytes.subarray(certificate.at, certificate.end),
    serial: serialHex(bytes, serial),
    issuer: wholeHex(bytes, issuer),
  };
}

/** Two authorities may have one name, as while a root is replaced by another. */
function isSignedBy(
  { signedDer, signature, hash }: RevocationList,
  issuerDer: Uint8Array,
): boolean {
  try {
    return verify(hash, signedDer, new X509Certificate(issuerDer).publicKey, signature);
  } catch {
    // A key of another kind.
    return false;
  }
}
