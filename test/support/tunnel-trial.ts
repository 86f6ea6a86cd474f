/** Opens a tunnel in a Node other than the one that runs the tests. */
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { testCa, testIdentity } from "./test-ca.ts";

/** What `test/native/handshake.mjs` prints. */
export interface TrialOutcome {
  readonly openssl: string;
  /** "yes", or why there was no tunnel. */
  readonly mesh: string;
  readonly postQuantum: string;
}

/**
 * Fetches a Node of Linux from npm.
 *
 * @param architecture as Node calls it: `x64`, `arm64`.
 * @returns the path of the binary.
 */
export function fetchNode(scratch: string, version: string, architecture: string): string {
  const folder = join(scratch, version);
  mkdirSync(folder);
  // Installing refuses what is for another processor.
  const name = `node-linux-${architecture}@${version}`;
  const packed = execFileSync("npm", ["pack", "--silent", "--pack-destination", folder, name]);
  execFileSync("tar", ["xzf", packed.toString().trim()], { cwd: folder });
  return join(folder, "package/bin/node");
}

/** @returns the path of what `handshake.mjs` takes. */
export async function writeCertificate(scratch: string): Promise<string> {
  const certificate = await (await testCa()).certificate(testIdentity("anyone"));
  const path = join(scratch, "certificate.json");
  const json = {
    chainPem: certificate.chainPem.join("\n"),
    keyPem: certificate.privateKeyPem,
    rootsPem: certificate.rootsPem.join("\n"),
  };
  writeFileSync(path, JSON.stringify(json));
  return path;
}
