/**
 * An X.509 authority for one machine. Its root is made once and kept in a directory, or in memory
 * for tests; leaves are shaped as a real istiod shapes them (spec control-plane 5.4).
 */
import { createPublicKey, webcrypto, X509Certificate } from "node:crypto";
import { readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Certificate, CertificationRequest, Extensions, type GeneralName } from "pkijs";
import { formatSpiffeId, type Identity } from "../mesh/identity.ts";
import type { Clock } from "../runtime/clock.ts";
import { makeFolder } from "../runtime/folder.ts";
import { formatPem } from "../tls/pem.ts";
import {
  type AlternativeName,
  buildCa,
  buildLeaf,
  generateKeyPair,
  type KeyPair,
  type SigningCertificate,
} from "./certificate-builder.ts";

/** Why a request is not signed, in istiod's words. */
export class CsrError extends Error {
  override readonly name = "CsrError";
}

/** A server's own certificate. */
export interface ServerCertificate {
  /** Leaf alone. */
  readonly certificatePem: string;
  /** PKCS#8 PEM. */
  readonly privateKeyPem: string;
}

/** In the state directory; readable by all. */
export const ROOT_FILE = "root-cert.pem";
/** In the state directory; readable by its owner. */
const KEY_FILE = "root-key.pem";

const SECOND_MS = 1000;
/** How far back certificates are valid, for clocks that are not quite equal; as istiod. */
const BACKDATE_MS = 120 * SECOND_MS;
/** When a request asks for none; as istiod. */
const VALIDITY_SECONDS_DEFAULT = 86_400;
/** 90 days; as istiod's default of MAX_WORKLOAD_CERT_TTL. */
const VALIDITY_SECONDS_MAX = 7_776_000;
/** Ten years; as istiod's self-signed root. */
const ROOT_VALIDITY_MS = 3650 * 86_400 * SECOND_MS;

const OID_EXTENSION_REQUEST = "1.2.840.113549.1.9.14";
const OID_SUBJECT_ALT_NAME = "2.5.29.17";
const GENERAL_NAME_URI = 6;

const CSR_BLOCK = /-----BEGIN CERTIFICATE REQUEST-----[^-]*-----END CERTIFICATE REQUEST-----/;

/** Signs what it is told to sign; who may have what is decided by the caller. */
export class EmbeddedAuthority {
  readonly #root: SigningCertificate;
  readonly #rootNotAfterAt: number;
  readonly #clock: Clock;

  private constructor(root: SigningCertificate, clock: Clock) {
    this.#root = root;
    this.#rootNotAfterAt = root.certificate.notAfter.value.getTime();
    this.#clock = clock;
  }

  /** A new root that is forgotten with the object. */
  static async inMemory(clock: Clock): Promise<EmbeddedAuthority> {
    return new EmbeddedAuthority(await makeRoot(clock), clock);
  }

  /**
   * The root kept in a directory, made now if there is none.
   *
   * @throws Error when the directory can't be used or holds half a root.
   */
  static async open(clock: Clock, directory: string): Promise<EmbeddedAuthority> {
    await makeFolder(directory, 0o700);
    const rootFile = join(directory, ROOT_FILE);
    const keyFile = join(directory, KEY_FILE);
    const rootPem = await readIfPresent(rootFile);
    const keyPem = await readIfPresent(keyFile);
    if (rootPem !== undefined && keyPem !== undefined) {
      return new EmbeddedAuthority(await loadRoot({ rootPem, rootFile, keyPem, keyFile }), clock);
    }
    if (rootPem !== undefined) {
      throw new Error(`${rootFile} has no key beside it in ${keyFile}; remove it to start anew`);
    }
    // A key alone is what an interrupted start leaves: nobody has seen its root, so both are new.
    const root = await makeRoot(clock);
    await writeWhole(keyFile, await exportKey(root.privateKey), 0o600);
    await writeWhole(rootFile, root.pem, 0o644);
    return new EmbeddedAuthority(root, clock);
  }

  get rootPem(): string {
    return this.#root.pem;
  }

  /**
   * A leaf for the identity and the key in the request; what else the request says is ignored.
   *
   * @param validitySeconds 0 or less is 24 hours.
   * @returns leaf, then root: the answer of the Istio CA service.
   * @throws CsrError
   */
  async sign(
    identity: Identity,
    csrPem: string,
    validitySeconds: number = VALIDITY_SECONDS_DEFAULT,
  ): Promise<readonly string[]> {
    const request = await verifiedRequest(csrPem);
    const seconds = validitySeconds > 0 ? validitySeconds : VALIDITY_SECONDS_DEFAULT;
    if (seconds > VALIDITY_SECONDS_MAX) {
      throw new CsrError(
        `requested TTL ${goDuration(seconds)} is greater than the max allowed TTL ` +
          goDuration(VALIDITY_SECONDS_MAX),
      );
    }
    const now = this.#clock.now();
    const leaf = await buildLeaf(
      {
        publicKeyDer: new Uint8Array(request.subjectPublicKeyInfo.toSchema().toBER()),
        names: [{ kind: "uri", uri: formatSpiffeId(identity) }],
        purposes: ["server", "client"],
        notBeforeAt: now - BACKDATE_MS,
        notAfterAt: Math.min(now + seconds * SECOND_MS, this.#rootNotAfterAt),
      },
      this.#root,
    );
    return [leaf, this.#root.pem];
  }

  /** A fresh key and a certificate for a server of ours, valid as long as the root. */
  async issueServer(names: readonly AlternativeName[]): Promise<ServerCertificate> {
    const keys = await generateKeyPair();
    const certificatePem = await buildLeaf(
      {
        publicKeyDer: new Uint8Array(await webcrypto.subtle.exportKey("spki", keys.publicKey)),
        names,
        purposes: ["server"],
        notBeforeAt: this.#clock.now() - BACKDATE_MS,
        notAfterAt: this.#rootNotAfterAt,
      },
      this.#root,
    );
    return { certificatePem, privateKeyPem: await exportKey(keys.privateKey) };
  }
}

/**
 * The first URI that a certificate request asks for in its subject alternative name.
 *
 * @throws CsrError when it can't be read.
 */
export function requestedUri(csrPem: string): string | undefined {
  const attributes = parseRequest(csrPem).attributes ?? [];
  const asked = attributes.find((attribute) => attribute.type === OID_EXTENSION_REQUEST);
  if (asked === undefined) return undefined;
  const extensions = new Extensions({ schema: asked.values[0] }).extensions;
  const san = extensions.find((extension) => extension.extnID === OID_SUBJECT_ALT_NAME);
  const names: readonly GeneralName[] = san?.parsedValue?.altNames ?? [];
  const name = names.find((candidate) => candidate.type === GENERAL_NAME_URI);
  return name === undefined ? undefined : String(name.value);
}

async function verifiedRequest(csrPem: string): Promise<CertificationRequest> {
  const request = parseRequest(csrPem);
  let valid: boolean;
  try {
    valid = await request.verify();
  } catch (error) {
    throw new CsrError("x509: cannot verify signature: algorithm unimplemented", { cause: error });
  }
  if (!valid) throw new CsrError("x509: ECDSA verification failure");
  return request;
}

function parseRequest(csrPem: string): CertificationRequest {
  const [block] = CSR_BLOCK.exec(csrPem) ?? [];
  if (block === undefined) {
    throw new CsrError("certificate signing request is not properly encoded");
  }
  try {
    return CertificationRequest.fromBER(derOf(block));
  } catch (error) {
    throw new CsrError("failed to parse X.509 certificate signing request", { cause: error });
  }
}

async function makeRoot(clock: Clock): Promise<SigningCertificate> {
  const notBeforeAt = clock.now() - BACKDATE_MS;
  const validity = { notBeforeAt, notAfterAt: notBeforeAt + ROOT_VALIDITY_MS };
  return buildCa({ organization: "cluster.local", ...validity }, await generateKeyPair());
}

async function loadRoot(files: {
  readonly rootPem: string;
  readonly rootFile: string;
  readonly keyPem: string;
  readonly keyFile: string;
}): Promise<SigningCertificate> {
  const certificate = await readAs(files.rootFile, () => Certificate.fromBER(derOf(files.rootPem)));
  const key = await readAs(files.keyFile, () => importKey(files.keyPem));
  const ours = new X509Certificate(files.rootPem).publicKey.equals(createPublicKey(files.keyPem));
  if (!ours) throw new Error(`the key in ${files.keyFile} is not that of ${files.rootFile}`);
  return { pem: files.rootPem, certificate, privateKey: key };
}

async function readAs<T>(file: string, read: () => T | Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    throw new Error(`${file} can't be read as what it should be; remove it to start anew`, {
      cause: error,
    });
  }
}

function importKey(pem: string): Promise<KeyPair["privateKey"]> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256" };
  return webcrypto.subtle.importKey("pkcs8", derOf(pem), algorithm, true, ["sign"]);
}

async function exportKey(key: KeyPair["privateKey"]): Promise<string> {
  return formatPem("PRIVATE KEY", new Uint8Array(await webcrypto.subtle.exportKey("pkcs8", key)));
}

function derOf(pem: string): ArrayBuffer {
  const base64 = pem.replaceAll(/-----[^-]*-----/g, "");
  return new Uint8Array(Buffer.from(base64, "base64")).buffer;
}

async function readIfPresent(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/** A reader sees the whole file or none, also after a crash in between. */
async function writeWhole(file: string, text: string, mode: number): Promise<void> {
  const fresh = `${file}.${process.pid}.new`;
  await writeFile(fresh, text, { mode, flag: "w" });
  await rename(fresh, file);
}

/** `2160h0m1s`, as Go prints whole seconds of an hour and more. */
function goDuration(seconds: number): string {
  return `${Math.floor(seconds / 3600)}h${Math.floor((seconds % 3600) / 60)}m${seconds % 60}s`;
}
