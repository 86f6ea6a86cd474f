import assert from "node:assert/strict";
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import {
  type KeptResource,
  readStateFile,
  StateFileError,
  writeStateFile,
} from "../../src/xds/state-file.ts";
import { missingTool } from "../support/missing-tool.ts";

const notRoot = process.getuid?.() === 0 ? false : missingTool("only root gives files away");
let folder = "";
beforeEach(() => {
  folder = join(mkdtempSync(join(tmpdir(), "ztunnel-state-")), "state");
});
afterEach(() => rmSync(join(folder, ".."), { recursive: true, force: true }));

const RESOURCES: readonly KeptResource[] = [
  { type: "address", name: "c//Pod/n/ä", version: "1f", bytes: Uint8Array.of(1, 2, 3) },
  { type: "policy", name: "n/p", version: "", bytes: new Uint8Array() },
];

const file = (): string => join(folder, "mesh.state");

async function read() {
  const kept = await readStateFile(folder);
  return kept?.resources.map(({ bytes, ...rest }) => ({ ...rest, bytes: Uint8Array.from(bytes) }));
}

test("what is written is read, with the time at which it was taken", async () => {
  await writeStateFile(folder, 1_800_000_000_123.5, RESOURCES);
  assert.equal((await readStateFile(folder))?.takenAt, 1_800_000_000_123.5);
  assert.deepEqual(await read(), RESOURCES);
});

test("a mesh of megabytes is written in pieces", async () => {
  const many = Array.from({ length: 3000 }, (_, i): KeptResource => {
    return { type: "address", name: `w${i}`, version: "v", bytes: new Uint8Array(500).fill(i) };
  });
  await writeStateFile(folder, 1, many);
  assert.deepEqual(await read(), many);
});

test("nothing kept is nothing read", async () => {
  assert.equal(await readStateFile(folder), undefined);
});

test("only its owner may read it", async () => {
  await writeStateFile(folder, 1, RESOURCES);
  assert.equal(statSync(file()).mode & 0o777, 0o600);
  assert.equal(statSync(folder).mode & 0o777, 0o700);
});

test("a newer one takes its place, also after one that was cut off", async () => {
  await writeStateFile(folder, 1, RESOURCES);
  writeFileSync(`${file()}.part`, "cut off", { mode: 0o644 });
  await writeStateFile(folder, 2, []);
  assert.deepEqual(await read(), []);
  assert.deepEqual(readdirSync(folder), ["mesh.state"]);
  assert.equal(statSync(file()).mode & 0o777, 0o600);
});

test("a failure leaves the former one", async () => {
  await writeStateFile(folder, 1, RESOURCES);
  function* failing(): Iterable<KeptResource> {
    yield* RESOURCES;
    throw new Error("out of resources");
  }
  await assert.rejects(writeStateFile(folder, 2, failing()), /out of resources/);
  assert.equal((await readStateFile(folder))?.takenAt, 1);
});

test("one flipped bit anywhere, or a missing end, is noticed", async () => {
  await writeStateFile(folder, 1, RESOURCES);
  const whole = readFileSync(file());
  for (let at = 0; at < whole.length; at++) {
    const damaged = Buffer.from(whole);
    damaged[at] = (damaged[at] ?? 0) ^ 4;
    writeFileSync(file(), damaged);
    await assert.rejects(readStateFile(folder), StateFileError);
  }
  for (const length of [0, 10, whole.length - 1]) {
    writeFileSync(file(), whole.subarray(0, length));
    await assert.rejects(readStateFile(folder), StateFileError);
  }
});

for (const [who, mode, text] of [
  ["everybody", 0o606, "mode 0606 lets everybody write it"],
  ["a group of others", 0o660, "mode 0660 lets group 12345 write it"],
] as const) {
  test(`a file that ${who} may write is not believed`, { skip: notRoot }, async () => {
    await writeStateFile(folder, 1, RESOURCES);
    chownSync(file(), 0, 12345);
    chmodSync(file(), mode);
    await assert.rejects(readStateFile(folder), {
      name: "StateFileError",
      message: `${file()} can't be trusted: ${text}`,
    });
  });
}

test("a file of another user is not believed", { skip: notRoot }, async () => {
  await writeStateFile(folder, 1, RESOURCES);
  chownSync(file(), 12345, 0);
  await assert.rejects(readStateFile(folder), {
    message: `${file()} can't be trusted: it belongs to user 12345`,
  });
});

test("a file that our own group may write is believed, and is ours alone with the next one", async () => {
  await writeStateFile(folder, 1, RESOURCES);
  chmodSync(file(), 0o660);
  assert.deepEqual(await read(), RESOURCES);
  await writeStateFile(folder, 2, RESOURCES);
  assert.equal(statSync(file()).mode & 0o777, 0o600);
});

test("what is no file, or of another version, is told", async () => {
  mkdirSync(file(), { recursive: true });
  await assert.rejects(readStateFile(folder), { message: `${file()} is no file` });
  rmSync(file(), { recursive: true });
  await writeStateFile(folder, 1, RESOURCES);
  const other = readFileSync(file()).toString("latin1").replace("mesh 1", "mesh 0");
  writeFileSync(file(), other, "latin1");
  await assert.rejects(readStateFile(folder), { message: `${file()} is not the state of a mesh` });
});
