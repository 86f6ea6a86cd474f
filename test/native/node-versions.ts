/**
 * Holds the table of Node versions in native/README.md to the truth: fetches every Node that it
 * names from npm, loads the addon there, opens a tunnel, and prints the rows that differ.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fetchNode, type TrialOutcome, writeCertificate } from "../support/tunnel-trial.ts";

const ROOT = resolve(import.meta.dirname, "../..");
const ROW = /^\| (\d+\.\d+\.\d+) \|.*$/gm;

const scratch = mkdtempSync(join(tmpdir(), "ztunnel-nodes-"));
try {
  const rows = [...readFileSync(join(ROOT, "native/README.md"), "utf8").matchAll(ROW)];
  const versions = rows.map(([, version = ""]) => version);
  const problems: string[] = [];
  const ours = process.version.slice(1);
  if (!versions.includes(ours)) problems.push(`no row of the Node that runs everything, ${ours}`);

  const certificate = await writeCertificate(scratch);
  for (const [row, version = ""] of rows) {
    const node = fetchNode(scratch, version, process.arch);
    const actual = rowOf(version, run(node, certificate));
    process.stdout.write(`${actual}\n`);
    if (actual !== row) problems.push(`native/README.md says ${row}`);
  }
  for (const problem of problems) process.stderr.write(`${problem}\n`);
  process.exitCode = problems.length === 0 ? 0 : 1;
} finally {
  rmSync(scratch, { recursive: true });
}

function run(node: string, certificate: string): TrialOutcome {
  const script = join(import.meta.dirname, "handshake.mjs");
  return JSON.parse(execFileSync(node, [script, certificate], { encoding: "utf8" }));
}

function rowOf(version: string, { openssl, mesh, postQuantum }: TrialOutcome): string {
  const offers = postQuantum === "yes" ? "yes" : "no";
  return `| ${version} | ${openssl} | ${mesh} | ${offers} |`;
}
