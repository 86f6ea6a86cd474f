import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { loadAddon } from "../../src/net/addon.ts";

const ADDON = fileURLToPath(new URL("../../native/build/ztunnel.node", import.meta.url));
const COMPILER = process.env["CXX"] ?? "c++";
const ADVICE = "; run it with a Node from nodejs.org or a distribution, version 20 or later";

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), "ztunnel-openssl-"));
});
after(() => rmSync(folder, { recursive: true }));

/** @returns the path of what the compiler made. */
function compile(source: string, name: string, ...flags: readonly string[]): string {
  const output = join(folder, name);
  writeFileSync(`${output}.cc`, source);
  run(COMPILER, [`${output}.cc`, "-o", output, ...flags]);
  return output;
}

function run(command: string, parameters: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(command, parameters, { encoding: "utf8" });
  assert.equal(status, 0, stderr);
  return stdout;
}

describe("a Node", () => {
  test("without one of OpenSSL's functions is told so, and what to do", () => {
    const source = `extern "C" int SSL_of_tomorrow(); int call() { return SSL_of_tomorrow(); }`;
    const path = compile(source, "tomorrow.node", "-shared", "-fPIC", "-Wl,-z,now");
    const load = (): unknown => createRequire(import.meta.url)(path);
    const message = `this Node offers no OpenSSL 3 (no SSL_of_tomorrow)${ADVICE}`;
    assert.throws(() => loadAddon(load, "3.5.8"), { message });
  });

  for (const [version, carried] of [
    ["4.0.0", "OpenSSL 4.0.0"],
    ["1.1.1v+quic", "OpenSSL 1.1.1v+quic"],
    [undefined, "no OpenSSL"],
  ] as const) {
    test(`with ${carried} is told so, and what to do`, () => {
      const message = `this Node carries ${carried}, but tunnels need OpenSSL 3${ADVICE}`;
      assert.throws(() => loadAddon(() => ({}), version), { message });
    });
  }

  test("with any OpenSSL 3 gets the addon", () => {
    const loaded = {};
    assert.equal(
      loadAddon(() => loaded, "3.0.19"),
      loaded,
    );
  });

  test("that fails to load it for another reason hears that reason", () => {
    const load = (): unknown => createRequire(import.meta.url)(join(folder, "missing.node"));
    assert.throws(() => loadAddon(load, "3.5.8"), { code: "MODULE_NOT_FOUND" });
  });
});

test("the loader looks for all functions when it loads the addon, not when one is called", () => {
  const source = `
    #include <dlfcn.h>
    #include <cstdio>
    int main(int, char** paths) {
      return puts(dlopen(paths[1], RTLD_LAZY) == nullptr ? dlerror() : "loaded") < 0;
    }`;
  const program = compile(source, "loader", "-ldl");
  assert.match(run(program, [ADDON]), /undefined symbol: \w+/);
});
