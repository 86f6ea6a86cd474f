import assert from "node:assert/strict";
import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { LocalMeshError } from "../../src/config/local-mesh-file.ts";
import { MeshFile } from "../../src/embedded/mesh-file.ts";
import { systemClock } from "../../src/runtime/clock.ts";

const scratch = await mkdtemp(join(tmpdir(), "ztunnel-mesh-file-"));
after(() => rm(scratch, { recursive: true, force: true }));

const OBJECTS = `apiVersion: v1
kind: Namespace
metadata: { name: shop, labels: { istio.io/dataplane-mode: ambient } }
---
apiVersion: v1
kind: Service
metadata: { name: web, namespace: shop }
spec: { clusterIP: 10.96.0.7, selector: { app: web }, ports: [{ port: 80, targetPort: 8080 }] }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: settings, namespace: shop }
data: { color: blue }
`;
const SERVICE = "shop/web.shop.svc.cluster.local";

test("Kubernetes objects are a mesh, too; what it has no use for is told", async () => {
  const path = join(scratch, "objects.yaml");
  await writeFile(path, OBJECTS);
  const file = new MeshFile(path);
  assert.deepEqual([...file.snapshot.addresses.keys()], [SERVICE]);
  assert.equal(file.notes.length, 1);
  assert.match(file.notes[0] ?? "", /ConfigMap/);
});

test("mistakes in Kubernetes objects are told with file, document and line", async () => {
  const path = join(scratch, "mistaken.yaml");
  await writeFile(path, OBJECTS.replace("port: 80,", "port: many,"));
  assert.throws(
    () => new MeshFile(path),
    (error: unknown) => {
      assert(error instanceof LocalMeshError);
      assert.equal(error.mistakes.length, 1);
      assert.match(error.mistakes[0] ?? "", /^\S+mistaken\.yaml: document 2, line 8: .*port/);
      return true;
    },
  );
});

test("changes are followed, however the file is written; mistakes keep the former mesh", async () => {
  const path = join(scratch, "followed.yaml");
  await writeFile(path, OBJECTS);
  const file = new MeshFile(path);
  const events: string[] = [];
  let happened = Promise.withResolvers<void>();
  const note = (event: string): void => {
    events.push(event);
    happened.resolve();
    happened = Promise.withResolvers();
  };
  file.follow({
    clock: systemClock,
    changed: (snapshot) => note([...snapshot.addresses.keys()].join(" ")),
    refused: (mistakes) => note(`${mistakes.length} mistakes`),
  });
  const after = async (write: () => Promise<void>): Promise<string | undefined> => {
    const { promise } = happened;
    await write();
    await keptAlive(promise);
    return events.at(-1);
  };
  const inPlace = await after(() => writeFile(path, OBJECTS.replaceAll("name: web", "name: app")));
  assert.equal(inPlace, "shop/app.shop.svc.cluster.local");
  const broken = await after(() => writeFile(path, `${OBJECTS}---\nkind: 7\n`));
  assert.match(broken ?? "", /^\d+ mistakes$/);
  assert.deepEqual([...file.snapshot.addresses.keys()], ["shop/app.shop.svc.cluster.local"]);
  const replaced = await after(async () => {
    await writeFile(`${path}.new`, OBJECTS);
    await rename(`${path}.new`, path);
  });
  assert.equal(replaced, SERVICE);
  const otherFormat = await after(() => writeFile(path, "workloads: []\n"));
  assert.equal(otherFormat, "");
  file.close();
});

/** Looking at a file alone keeps no process running. */
async function keptAlive(promise: Promise<void>): Promise<void> {
  const timer = systemClock.after(60_000, () => undefined, true);
  await promise;
  timer.cancel();
}
