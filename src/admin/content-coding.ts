/** Compression of an answer, as the asker accepts it (RFC 9110, section 12.5.3). */
import { promisify } from "node:util";
import { brotliCompress, constants, deflate, gzip, zstdCompress } from "node:zlib";

type Compress = (bytes: Uint8Array) => Promise<Uint8Array>;

/** By our preference: what takes the least time for text goes first. */
const CODINGS: ReadonlyMap<string, Compress> = new Map<string, Compress>([
  ["zstd", promisify<Uint8Array, Uint8Array>(zstdCompress)],
  ["gzip", promisify<Uint8Array, Uint8Array>(gzip)],
  ["br", brotli],
  ["deflate", promisify<Uint8Array, Uint8Array>(deflate)],
]);

/** Brotli's default level is for files that are compressed once. */
const BROTLI_QUALITY = 4;

function brotli(bytes: Uint8Array): Promise<Uint8Array> {
  const params = { [constants.BROTLI_PARAM_QUALITY]: BROTLI_QUALITY };
  return new Promise((resolve, reject) => {
    brotliCompress(bytes, { params }, (error, compressed) =>
      error === null ? resolve(compressed) : reject(error),
    );
  });
}

/**
 * @param acceptEncoding the request's header.
 * @returns the best coding that both sides know, `undefined` to send the text as it is.
 */
export function chooseCoding(acceptEncoding: string | undefined): string | undefined {
  const accepted = new Map<string, number>();
  for (const item of (acceptEncoding ?? "").split(",")) {
    const [coding = "", ...parameters] = item.split(";").map((part) => part.trim().toLowerCase());
    const weight = parameters.find((parameter) => parameter.startsWith("q="));
    accepted.set(coding, weight === undefined ? 1 : Number(weight.slice(2)));
  }
  let best: string | undefined;
  let bestWeight = 0;
  for (const coding of CODINGS.keys()) {
    const weight = accepted.get(coding) ?? 0;
    if (weight > bestWeight) [best, bestWeight] = [coding, weight];
  }
  return best;
}

/** @param coding of {@link chooseCoding}. */
export async function compress(text: string, coding: string): Promise<Uint8Array> {
  const bytes = Buffer.from(text);
  return (await CODINGS.get(coding)?.(bytes)) ?? bytes;
}
