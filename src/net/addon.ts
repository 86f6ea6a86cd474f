/**
 * Loads the addon, at the same relative place from src/net and dist/net, and says what is wrong with
 * a Node that can't run it.
 */
import { createRequire } from "node:module";

const ADVICE = "run it with a Node from nodejs.org or a distribution, version 20 or later";

/** What the addon exports; who uses a part of it declares that part. */
export const addon: unknown = loadAddon(
  () => createRequire(import.meta.url)("../../native/build/ztunnel.node"),
  process.versions.openssl,
);

/**
 * @param load throws what the loader of programs says when one of OpenSSL's functions is missing.
 * @param opensslVersion `undefined`: this Node has none.
 * @throws Error with one sentence for the operator.
 */
export function loadAddon(load: () => unknown, opensslVersion: string | undefined): unknown {
  let loaded: unknown;
  try {
    loaded = load();
  } catch (error) {
    const missing = /undefined symbol: (\w+)/.exec(String(error))?.[1];
    if (missing === undefined) throw error;
    const reason = `this Node offers no OpenSSL 3 (no ${missing}); ${ADVICE}`;
    throw new Error(reason, { cause: error });
  }
  if (opensslVersion?.startsWith("3.")) return loaded;
  const carried = opensslVersion === undefined ? "no OpenSSL" : `OpenSSL ${opensslVersion}`;
  throw new Error(`this Node carries ${carried}, but tunnels need OpenSSL 3; ${ADVICE}`);
}
