import { formatSpiffeId, type Identity } from "../../src/mesh/identity.ts";
import type { WorkloadCertificate } from "../../src/mesh/workload-certificate.ts";

/** A certificate that says who it is and nothing else: unsigned, without a key. */
export function memoryCertificate(identity: Identity, root = "root"): WorkloadCertificate {
  const uri = tlv(0x86, Buffer.from(formatSpiffeId(identity)));
  const extension = tlv(
    0x30,
    tlv(0x06, Buffer.from([0x55, 0x1d, 0x11])),
    tlv(0x04, tlv(0x30, uri)),
  );
  const leaf = tlv(0x30, tlv(0x30, tlv(0xa3, tlv(0x30, extension))));
  return {
    identity,
    chainPem: [leaf.toString("base64")],
    privateKeyPem: "",
    rootsPem: [root],
    notBeforeAt: 0,
    notAfterAt: Number.MAX_SAFE_INTEGER,
  };
}

/** A DER element of less than 64 KiB. */
function tlv(tag: number, ...contents: Buffer[]): Buffer {
  const body = Buffer.concat(contents);
  const { length } = body;
  const head = length < 128 ? [tag, length] : [tag, 0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from(head), body]);
}

export function leafOf(certificate: WorkloadCertificate): Uint8Array {
  return Buffer.from(certificate.chainPem[0] ?? "", "base64");
}

export function chainOf({ chainPem, rootsPem }: WorkloadCertificate): Uint8Array {
  return Buffer.concat([...chainPem, ...rootsPem].map((text) => Buffer.from(text, "base64")));
}

export function trusts(one: WorkloadCertificate, other: WorkloadCertificate): boolean {
  return one.rootsPem.join() === other.rootsPem.join();
}
