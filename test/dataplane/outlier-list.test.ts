import assert from "node:assert/strict";
import { test } from "node:test";
import { makeOutlierFamilies } from "../../src/dataplane/metrics.ts";
import { OutlierList } from "../../src/dataplane/outlier-list.ts";
import { makeRegistry } from "../../src/telemetry/registry.ts";
import { CapturedLog, formatFields } from "../support/captured-log.ts";
import { mesh } from "../support/mesh-fixture.ts";

const OUTLIER = {
  service: "default/svc.default.svc.cluster.local",
  port: 80,
  uid: "uid-w0",
  workload: "default/w0",
  failures: 5,
  ejectionMs: 30_000,
  until: 1_800_000_030_000,
};

test("what any thread leaves out is listed, logged and counted, until that thread takes it back", async () => {
  const log = new CapturedLog();
  const registry = makeRegistry();
  const list = new OutlierList({ log: log.root, families: makeOutlierFamilies(registry) });
  const service = mesh.service("svc").value;
  list.changed("data-0", { kind: "ejected", outlier: OUTLIER });
  list.changed("data-1", { kind: "ejected", outlier: OUTLIER });
  list.changed("data-0", { kind: "returned", outlier: OUTLIER });
  assert.deepEqual(list.all(), [{ ...OUTLIER, thread: "data-1" }]);
  assert.deepEqual(list.leftOut(service, 80), new Set(["uid-w0"]));
  assert.equal(list.leftOut(service, 81), undefined);
  assert.deepEqual(
    log.lines.map(({ level, message, fields }) => `${level} ${message} ${formatFields(fields)}`),
    [
      'warn endpoint left out workload="default/w0" service="default/svc.default.svc.cluster.local" port=80 failures=5 for="30000ms" thread="data-0"',
      'warn endpoint left out workload="default/w0" service="default/svc.default.svc.cluster.local" port=80 failures=5 for="30000ms" thread="data-1"',
      'info endpoint taken back workload="default/w0" service="default/svc.default.svc.cluster.local" port=80 thread="data-0"',
    ],
  );
  const text = await registry.metrics();
  for (const line of [
    'ztunnel_outlier_ejections_total{thread="data-0"} 1',
    'ztunnel_outlier_endpoints_ejected{thread="data-0"} 0',
    'ztunnel_outlier_endpoints_ejected{thread="data-1"} 1',
  ]) {
    assert.ok(text.includes(line), text);
  }
  list.changed("data-1", { kind: "returned", outlier: OUTLIER });
  assert.equal(list.leftOut(service, 80), undefined);
});
