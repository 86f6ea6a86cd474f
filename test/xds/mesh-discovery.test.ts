/** A conversation with a server whose roots, and whose token, change on disk meanwhile. */
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { CallerCheck } from "../../src/embedded/caller-check.ts";
import { EmbeddedAuthority } from "../../src/embedded/certificate-authority.ts";
import { ControlPlaneServer } from "../../src/embedded/control-plane-server.ts";
import { DiscoveryService } from "../../src/embedded/discovery-service.ts";
import { MeshSnapshot } from "../../src/embedded/mesh-snapshot.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { systemRandom } from "../../src/runtime/random.ts";
import type { TerminationReason } from "../../src/xds/discovery-client.ts";
import { MeshDiscovery } from "../../src/xds/mesh-discovery.ts";
import { readStateFile } from "../../src/xds/state-file.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { liveMesh } from "../support/mesh-fixture.ts";
import { silentLogger } from "../support/silent-logger.ts";

/** Longer than the clock of these tests ever goes. */
const NEVER_MS = 1e8;
/** Of the real clock, on a busy machine. */
const WAIT_MS_MAX = 20_000;
const folder = mkdtempSync(join(tmpdir(), "ztunnel-discovery-"));
after(() => rmSync(folder, { recursive: true }));
const [old, young] = await Promise.all([
  EmbeddedAuthority.inMemory(systemClock),
  EmbeddedAuthority.inMemory(systemClock),
]);

for (const [what, replace] of [
  ["roots", (files: Files) => writeFileSync(files.roots, old.rootPem + young.rootPem)],
  ["token", (files: Files) => writeFileSync(files.token, "renewed")],
] as const) {
  test(`a file of ${what} that changes begins a new conversation, one that does not change none`, async (t) => {
    const { files, clock, endings, discovery, lines, stop } = await converse(what);
    t.after(stop);
    const conversations = (): number =>
      lines.filter((line) => line === "proxy of node1: connected").length;
    await until(clock, () => discovery.status().connected);
    for (let i = 0; i < 10; i++) await until(clock, () => true, 10_000);
    assert.deepEqual([conversations(), endings], [1, []]);

    replace(files);
    await until(clock, () => conversations() === 2 && discovery.status().connected, 5000);
    assert.equal(endings.length, 1);
  });
}

test("files that come late are no change: the conversation began with them", async (t) => {
  const { files, clock, endings, discovery, lines, stop } = await converse("late", {
    prepare: (paths) => {
      rmSync(paths.roots);
      rmSync(paths.token);
    },
  });
  t.after(stop);
  await until(clock, () => endings.length > 1);
  writeFileSync(files.token, "first");
  writeFileSync(files.roots, old.rootPem);
  await until(clock, () => discovery.status().connected);
  const failures = endings.length;
  for (let i = 0; i < 10; i++) await until(clock, () => true, 10_000);
  assert.equal(endings.length, failures);
  assert.equal(lines.filter((line) => line === "proxy of node1: connected").length, 1);
});

test("half a mesh is not kept, a whole one is, whatever of it is refused later", async (t) => {
  const broken = new Map([["default/wide", Uint8Array.of(0x2a, 0x7f)]]);
  const kept = join(folder, "kept");
  const { clock, discovery, service, stop } = await converse("half", {
    snapshot: new MeshSnapshot(new Map(), broken),
    keptIn: kept,
  });
  t.after(stop);
  await until(clock, () => discovery.status().connected);
  for (let i = 0; i < 10; i++) await until(clock, () => true, 10_000);
  assert.equal(existsSync(kept), false);

  service.update(new MeshSnapshot(new Map(), new Map()));
  await until(clock, () => existsSync(join(kept, "mesh.state")), 1000);
  service.update(new MeshSnapshot(new Map(), broken));
  const isKept = async (name: string): Promise<boolean> =>
    (await readStateFile(kept))?.resources.some((resource) => resource.name === name) ?? false;
  await until(clock, () => isKept("default/wide"), 1000);
});

interface Files {
  readonly roots: string;
  readonly token: string;
}

interface ConverseOptions {
  readonly prepare?: (files: Files) => void;
  readonly snapshot?: MeshSnapshot;
  readonly keptIn?: string;
}

async function converse(name: string, options: ConverseOptions = {}) {
  const files = { roots: join(folder, `${name}.pem`), token: join(folder, `${name}.token`) };
  writeFileSync(files.roots, old.rootPem);
  writeFileSync(files.token, "first");
  options.prepare?.(files);
  const lines: string[] = [];
  const callers = new CallerCheck({
    tokenFile: undefined,
    nodeTokenFiles: new Map(),
    clusterId: "Kubernetes",
  });
  const service = new DiscoveryService({
    callers,
    snapshot: options.snapshot ?? new MeshSnapshot(new Map(), new Map()),
    clock: systemClock,
    report: (line) => lines.push(line),
  });
  const server = await ControlPlaneServer.start(
    { authority: old, services: [service] },
    { listen: "127.0.0.1:0", names: [] },
  );
  const clock = new FakeClock(systemClock.now());
  const endings: TerminationReason[] = [];
  const discovery = new MeshDiscovery(
    {
      writer: liveMesh("node1").writer,
      committed: () => undefined,
      metrics: () => ({
        received: () => undefined,
        terminated: (reason) => endings.push(reason),
      }),
      connected: () => undefined,
      clock,
      random: systemRandom(),
      log: silentLogger,
    },
    {
      line: {
        address: `https://127.0.0.1:${server.port}`,
        roots: { kind: "file", path: files.roots },
        alternateHostname: undefined,
        token: { kind: "file", path: files.token },
        clusterId: "Kubernetes",
        headers: [],
        tls: { tls12: false, postQuantumOnly: false },
      },
      node: {
        id: "ztunnel~10.0.0.1~z.istio-system~istio-system.svc.cluster.local",
        metadata: { NODE_NAME: "node1" },
      },
      offeredBytesMax: 1_000_000,
      onDemand: false,
      connectMs: NEVER_MS,
      receivedBytesMax: 1_000_000,
      firstAnswerMs: NEVER_MS,
      demandMs: NEVER_MS,
      state:
        options.keptIn === undefined
          ? undefined
          : { folder: options.keptIn, everyMs: 1000, ageMsMax: NEVER_MS },
    },
  );
  const abort = new AbortController();
  const ended = discovery.run(abort.signal);
  const stop = async (): Promise<void> => {
    abort.abort();
    await ended;
    server.close();
  };
  return { files, clock, endings, discovery, service, lines, stop };
}

/** Lets the clock go on, and sockets and files have their turns, until it is so. */
async function until(
  clock: FakeClock,
  isSo: () => boolean | Promise<boolean>,
  stepMs = 100,
): Promise<void> {
  const startedAt = systemClock.monotonic();
  do {
    assert(systemClock.monotonic() - startedAt < WAIT_MS_MAX, "it never came");
    await clock.advance(stepMs);
    await new Promise<void>((resolve) => systemClock.after(5, resolve, true));
  } while (!(await isSo()));
}
