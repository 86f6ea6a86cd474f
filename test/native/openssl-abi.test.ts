import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

const NATIVE = fileURLToPath(new URL("../../native/", import.meta.url));
const PROGRAM = fileURLToPath(new URL("openssl-abi.cc", import.meta.url));
const COMPILER = process.env["CXX"] ?? "c++";
const HEADERS = join(dirname(process.execPath), "../include/node");
const ADVICE = "; run it with a Node from nodejs.org or a distribution, version 20 or later";

/** What the addon calls by name, beside the two functions that the program has itself. */
const FUNCTIONS = [
  ...readFileSync(join(NATIVE, "openssl_abi.h"), "utf8").matchAll(/\bX\((\w+)\)/g),
].map(([, name = ""]) => name);
const FAKES = FUNCTIONS.filter((name) => !name.startsWith("OpenSSL_version") && name !== "X");

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), "ztunnel-openssl-"));
});
after(() => rmSync(folder, { recursive: true }));

const CASES: [name: string, flags: readonly string[], problem: string][] = [
  ["without OpenSSL", [], `this Node offers no OpenSSL 3 (no ${FUNCTIONS.at(-1)})`],
  [
    "without one of the functions",
    linked(
      "0x30500080",
      "OpenSSL 3.5.8",
      FAKES.filter((name) => name !== "SSL_read_ex"),
    ),
    "this Node offers no OpenSSL 3 (no SSL_read_ex)",
  ],
  [
    "with OpenSSL 4",
    linked("0x40000000", "OpenSSL 4.0.0 14 Apr 2026", FAKES),
    "this Node carries OpenSSL 4.0.0 14 Apr 2026, but tunnels need OpenSSL 3",
  ],
  ["with any OpenSSL 3", linked("0x300000f0", "OpenSSL 3.0.15", FAKES), ""],
];
for (const [name, flags, problem] of CASES) {
  test(`a Node ${name} is told ${problem === "" ? "nothing" : "so, and what to do"}`, () => {
    const program = join(folder, name.replaceAll(" ", "-"));
    run(COMPILER, [
      ...["-std=c++17", "-isystem", HEADERS, ...flags],
      ...[PROGRAM, join(NATIVE, "openssl_abi.cc"), "-o", program],
    ]);
    assert.equal(run(program, []).trimEnd(), problem === "" ? "" : `${problem}${ADVICE}`);
  });
}

/** Gives the functions an address each, which is never called. */
function linked(version: string, text: string, functions: readonly string[]): readonly string[] {
  return [
    `-DVERSION_NUMBER=${version}`,
    `-DVERSION_TEXT="${text}"`,
    ...functions.map((name) => `-Wl,--defsym=${name}=main`),
  ];
}

function run(command: string, parameters: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(command, parameters, { encoding: "utf8" });
  assert.equal(status, 0, stderr);
  return stdout;
}
