/**
 * Compiles the addon for arm64 with Debian's cross compiler and opens a tunnel with it, in the arm64
 * build of this Node, under QEMU's emulation of a processor (the kernel is this machine's).
 * `npm run test:arm64` emulates all of a machine, and so takes minutes.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fetchNode, type TrialOutcome, writeCertificate } from "../support/tunnel-trial.ts";

const ROOT = resolve(import.meta.dirname, "../..");
const COMPILER = "aarch64-linux-gnu-g++";
/** Where Debian has the C library for what the cross compiler makes. */
const LIBRARIES = "/usr/aarch64-linux-gnu";
/** Takes 2 s. An emulator that hangs or dies tells nothing of the addon, so there are others. */
const TRIAL_MS_MAX = 60_000;
const TRIALS_MAX = 3;

const scratch = mkdtempSync(join(tmpdir(), "ztunnel-arm64-"));
try {
  // Beside this machine's addon, not in its place.
  for (const part of ["native", "dist"]) {
    cpSync(join(ROOT, part), join(scratch, part), { recursive: true });
  }
  mkdirSync(join(scratch, "test/native"), { recursive: true });
  const script = join(scratch, "test/native/handshake.mjs");
  cpSync(join(import.meta.dirname, "handshake.mjs"), script);
  symlinkSync(join(ROOT, "node_modules"), join(scratch, "node_modules"));
  const compiled = spawnSync(process.execPath, [join(scratch, "native/build.mjs")], {
    env: { ...process.env, CXX: COMPILER },
    stdio: "inherit",
  });
  assert.equal(compiled.status, 0, `needs ${COMPILER}: apt-get install g++-aarch64-linux-gnu`);

  const node = fetchNode(scratch, process.version.slice(1), "arm64");
  const outcome = tunnelIn(node, script, await writeCertificate(scratch));
  process.stdout.write(`${JSON.stringify(outcome)}\n`);
  assert.deepEqual([outcome.mesh, outcome.postQuantum], ["yes", "yes"]);
} finally {
  rmSync(scratch, { recursive: true });
}

function tunnelIn(node: string, script: string, certificate: string): TrialOutcome {
  let problem = "";
  for (let trial = 0; trial < TRIALS_MAX; trial++) {
    const { status, signal, stdout, stderr, error } = spawnSync(
      "qemu-aarch64",
      ["-L", LIBRARIES, node, script, certificate],
      { encoding: "utf8", timeout: TRIAL_MS_MAX },
    );
    if (status === 0) return JSON.parse(stdout);
    problem = `${error ?? signal ?? status} ${stderr}`;
  }
  throw new Error(`no tunnel under qemu-aarch64 (apt-get install qemu-user): ${problem}`);
}
