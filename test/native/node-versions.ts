/**
 * Holds the table of Node versions in native/README.md to the truth: fetches every Node that it
 * names from npm, loads the addon there, opens a tunnel, and prints the rows that differ.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { testCa, testIdentity } from "../support/test-ca.ts";

const ROOT = resolve(import.meta.dirname, "../..");
const PACKAGE = `node-linux-${process.arch}`;
const ROW = /^\| (\d+\.\d+\.\d+) \|.*$/gm;

/** What `handshake.mjs` prints. */
interface Outcome {
  readonly openssl: string;
  readonly mesh: string;
  readonly postQuantum: string;
}

const scratch = mkdtempSync(join(tmpdir(), "ztunnel-nodes-"));
try {
  const rows = [...readFileSync(join(ROOT, "native/README.md"), "utf8").matchAll(ROW)];
  const versions = rows.map(([, version = ""]) => version);
  const problems: string[] = [];
  const ours = process.version.slice(1);
  if (!versions.includes(ours)) problems.push(`no row of the Node that runs everything, ${ours}`);

  const certificate = join(scratch, "certificate.json");
  writeFileSync(certificate, await certificateJson());
  for (const [row, version = ""] of rows) {
    const actual = rowOf(version, run(fetchNode(version), certificate));
    process.stdout.write(`${actual}\n`);
    if (actual !== row) problems.push(`native/README.md says ${row}`);
  }
  for (const problem of problems) process.stderr.write(`${problem}\n`);
  process.exitCode = problems.length === 0 ? 0 : 1;
} finally {
  rmSync(scratch, { recursive: true });
}

/** @returns the path of the binary. */
function fetchNode(version: string): string {
  const folder = join(scratch, version);
  mkdirSync(folder);
  const flags = ["--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"];
  execFileSync("npm", ["install", ...flags, "--prefix", folder, `${PACKAGE}@${version}`]);
  return join(folder, "node_modules", PACKAGE, "bin/node");
}

function run(node: string, certificate: string): Outcome {
  const script = join(import.meta.dirname, "handshake.mjs");
  return JSON.parse(execFileSync(node, [script, certificate], { encoding: "utf8" }));
}

function rowOf(version: string, { openssl, mesh, postQuantum }: Outcome): string {
  const offers = postQuantum === "yes" ? "yes" : "no";
  return `| ${version} | ${openssl} | ${mesh} | ${offers} |`;
}

async function certificateJson(): Promise<string> {
  const certificate = await (await testCa()).certificate(testIdentity("anyone"));
  return JSON.stringify({
    chainPem: certificate.chainPem.join("\n"),
    keyPem: certificate.privateKeyPem,
    rootsPem: certificate.rootsPem.join("\n"),
  });
}
