/** Certificates of a lab's authority that no proxy asked for: peers of our own, also bad ones. */
import { createPrivateKey, webcrypto, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Certificate } from "pkijs";
import { type AlternativeName, buildLeaf } from "../../src/embedded/certificate-builder.ts";
import { formatPem } from "../../src/tls/pem.ts";
import type { MeshLab } from "./mesh-lab.ts";

const HOUR_MS = 3_600_000;

/** All PEM. */
export interface LabCertificate {
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
}

/** For client and server, valid for an hour. */
export function labCertificate(
  lab: MeshLab,
  ...names: readonly AlternativeName[]
): Promise<LabCertificate> {
  return labCertificateOn("P-256", lab, ...names);
}

/** As {@link labCertificate}, with a key on that curve. */
export async function labCertificateOn(
  namedCurve: "P-256" | "P-384",
  lab: MeshLab,
  ...names: readonly AlternativeName[]
): Promise<LabCertificate> {
  const folder = join(lab.folder, "authority");
  const ca = readFileSync(join(folder, "root-cert.pem"), "utf8");
  const rootKey = createPrivateKey(readFileSync(join(folder, "root-key.pem"), "utf8"));
  const algorithm = { name: "ECDSA", namedCurve: "P-256" };
  const keys = await webcrypto.subtle.generateKey({ name: "ECDSA", namedCurve }, true, ["sign"]);
  const cert = await buildLeaf(
    {
      publicKeyDer: new Uint8Array(await webcrypto.subtle.exportKey("spki", keys.publicKey)),
      names,
      purposes: ["server", "client"],
      notBeforeAt: Date.now() - HOUR_MS,
      notAfterAt: Date.now() + HOUR_MS,
    },
    {
      pem: ca,
      certificate: Certificate.fromBER(new Uint8Array(new X509Certificate(ca).raw)),
      privateKey: rootKey.toCryptoKey(algorithm, false, ["sign"]),
    },
  );
  const key = new Uint8Array(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey));
  return { cert, key: formatPem("PRIVATE KEY", key), ca };
}

/** `spiffe://cluster.local/ns/default/sa/NAME` */
export function workloadName(serviceAccount: string): AlternativeName {
  return { kind: "uri", uri: `spiffe://cluster.local/ns/default/sa/${serviceAccount}` };
}
