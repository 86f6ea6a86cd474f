/** PEM text (RFC 7468) cut into blocks. What stands between the blocks is ignored. */
import { TlsError } from "./tls-error.ts";

export interface PemBlock {
  /** `CERTIFICATE`, `PRIVATE KEY`, … */
  readonly label: string;
  /** The block alone, ends with one newline. */
  readonly text: string;
}

const BLOCK = /-----BEGIN ([A-Z0-9 ]+)-----(?:[^-]*(-----END \1-----))?/g;

/**
 * @returns the blocks in order.
 * @throws TlsError `bad-certificate` when a block has a beginning but no end.
 */
export function pemBlocks(text: string): readonly PemBlock[] {
  return [...text.matchAll(BLOCK)].map(([block, label = "", end]) => {
    if (end === undefined) throw new TlsError("bad-certificate", `PEM of ${label} has no end`);
    return { label, text: `${block}\n` };
  });
}

/** @param lineLength characters; RFC 7468 writes 64. */
export function formatPem(label: string, der: Uint8Array, lineLength = 64): string {
  const lines =
    Buffer.from(der)
      .toString("base64")
      .match(new RegExp(`.{1,${lineLength}}`, "g")) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}
