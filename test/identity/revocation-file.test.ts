import assert from "node:assert/strict";
import { mkdtempSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { watchRevocationFile } from "../../src/identity/revocation-file.ts";
import type { Logger } from "../../src/telemetry/logger.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { silentLogger } from "../support/silent-logger.ts";
import { testCa, testIdentity } from "../support/test-ca.ts";
import { buildCrl, crlPem } from "../support/test-crl.ts";

const directory = mkdtempSync(join(tmpdir(), "crl-"));
after(() => rmSync(directory, { recursive: true }));
const ca = await testCa();
const leaves = [
  (await ca.certificate(testIdentity("a"))).chainPem[0] as string,
  (await ca.certificate(testIdentity("b"))).chainPem[0] as string,
];
const one = crlPem(await buildCrl(ca.signer(), leaves.slice(0, 1)));
const two = crlPem(await buildCrl(ca.signer(), leaves));
let files = 0;

function fixture() {
  const path = join(directory, `${++files}.pem`);
  const clock = new FakeClock();
  const lines: string[] = [];
  const log: Logger = {
    ...silentLogger,
    write: (level, message) => lines.push(`${level} ${message.replace(path, "FILE")}`),
  };
  /** How many certificates each set revoked. */
  const told: number[] = [];
  const open = () =>
    watchRevocationFile(
      {
        clock,
        log,
        changed: (lists) => told.push(lists.reduce((sum, { serials }) => sum + serials.count, 0)),
      },
      path,
    );
  /** Past the next look, which reads a real file. */
  const look = async (): Promise<void> => {
    await clock.advance(2000);
    while (clock.pendingCount === 0) await setImmediate();
  };
  return { path, lines, told, open, look, clock };
}

test("lists are told at once, and again when they change", async () => {
  const { path, lines, told, open, look } = fixture();
  writeFileSync(path, one);
  const file = await open();
  await look();
  writeFileSync(path, two);
  await look();
  writeFileSync(path, "");
  await look();
  assert.deepEqual(told, [1, 2, 0]);
  assert.deepEqual(lines, [
    "info 1 certificate revocation list names 1 certificate",
    "info 1 certificate revocation list names 2 certificates",
    "info 0 certificate revocation lists name 0 certificates",
  ]);
  file.close();
});

test("a file that is missing at first is warned of and taken when it comes", async () => {
  const { path, lines, told, open, look } = fixture();
  const file = await open();
  await look();
  writeFileSync(path, one);
  await look();
  assert.deepEqual(told, [1]);
  assert.match(
    lines[0] ?? "",
    /^warn can't read the certificate revocation lists: ENOENT.*; nobody is revoked until they are there$/,
  );
  assert.equal(lines.length, 2);
  file.close();
});

test("a bad file leaves the former lists in place, with one line", async () => {
  const { path, lines, told, open, look } = fixture();
  writeFileSync(path, "junk");
  const file = await open();
  writeFileSync(path, one);
  await look();
  writeFileSync(path, "more junk");
  await look();
  await look();
  writeFileSync(path, two);
  await look();
  assert.deepEqual(told, [1, 2]);
  assert.deepEqual(
    lines.filter((line) => line.startsWith("warn")),
    [
      "warn FILE: bad certificate revocation list: it is no certificate list; nobody is revoked",
      "warn FILE: bad certificate revocation list: it is no certificate list; keeping the former ones",
    ],
  );
  file.close();
});

test("switched links are followed, and a file that goes away revokes on", async () => {
  const { path, told, open, look } = fixture();
  writeFileSync(`${path}.1`, one);
  writeFileSync(`${path}.2`, two);
  symlinkSync(`${path}.1`, path);
  const file = await open();
  symlinkSync(`${path}.2`, `${path}.new`);
  renameSync(`${path}.new`, path);
  await look();
  unlinkSync(path);
  await look();
  assert.deepEqual(told, [1, 2]);
  file.close();
});

test("a closed file keeps no timer", async () => {
  const { path, open, clock } = fixture();
  writeFileSync(path, one);
  (await open()).close();
  assert.equal(clock.pendingCount, 0);
});
