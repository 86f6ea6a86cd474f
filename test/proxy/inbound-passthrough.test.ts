import assert from "node:assert/strict";
import { test } from "node:test";
import { quiet } from "../support/memory-engine.ts";
import { greet, makeLab } from "./lab.ts";
import { workload } from "./recorded-mesh.ts";

test("a known source is named, but its identity is not proved", async () => {
  const lab = makeLab();
  await greet(lab, lab.pod("plain"), "10.77.0.22:8082");
  await greet(lab, lab.pod("plain"), "10.77.0.21:8080");
  const { labels } = lab.b.traffic.collect().series.at(-1) ?? { labels: [] };
  assert.deepEqual(labels.slice(1, 9), [
    "plain",
    "plain",
    "v1",
    "default",
    "unknown",
    "plain",
    "v1",
    "Kubernetes",
  ]);
  assert.equal(labels[22], "unknown");
  const names = lab.b.log
    .of("access")
    .at(-1)
    ?.fields.map(([name]) => name);
  assert.deepEqual(names, [
    "src.addr",
    "src.workload",
    "src.namespace",
    "src.cluster",
    "dst.addr",
    "dst.service",
    "dst.workload",
    "dst.namespace",
    "dst.cluster",
    "direction",
    "bytes_sent",
    "bytes_recv",
    "duration",
  ]);
});

test("an unknown local workload is waited for and then refused", async () => {
  const lab = makeLab();
  lab.b.enroll("late", lab.network.pod("10.77.0.28", "captured"));
  lab.b.log.clear();
  const client = lab.pod("outside").dial("10.77.0.28:80");
  await lab.clock.advance(4_999);
  assert.equal(client.readEnd, "open");
  await lab.clock.advance(1);
  await quiet();
  assert.equal(client.readEnd, "fin");
  const [warning, refused] = lab.b.log.lines;
  assert.deepEqual(
    [warning?.target, warning?.spans, warning?.message],
    [
      "ztunnel::state",
      ["proxy{wl=default/late}"],
      "timed out waiting for workload 'late.default (late)' from xds",
    ],
  );
  assert.equal(
    Object.fromEntries(refused?.fields ?? [])["error"],
    "failed to fetch information about local workload: late.default (late)",
  );
});

test("a proxy that closes while it waits for its workload lets go of the connection", async () => {
  const lab = makeLab();
  const proxy = lab.b.enroll("late", lab.network.pod("10.77.0.28", "captured"));
  const client = lab.pod("outside").dial("10.77.0.28:80");
  await quiet();
  await proxy.close();
  await quiet();
  assert.equal(client.readEnd, "fin");
  lab.b.log.clear();
  lab.b.mesh.apply([{ kind: "workload", workload: workload("late", "10.77.0.28") }]);
  await quiet();
  assert.deepEqual(lab.b.log.lines, []);
  assert.deepEqual(lab.b.traffic.collect().series, []);
});

test("an application that leaves later than its client still sends", async () => {
  const lab = makeLab();
  lab.pod("server1").serve(9000, (socket) => {
    socket.onReadable = () => {
      if (socket.readEnd !== "fin") return;
      socket.write(`you said ${socket.read()}`);
      socket.close();
    };
  });
  const client = lab.pod("outside").dial("10.77.0.21:9000");
  client.write("hello");
  client.end();
  await quiet();
  assert.equal(client.read(), "you said hello");
  assert.equal(client.readEnd, "fin");
});

test("a policy that comes while the application is dialled resets the client", async () => {
  const lab = makeLab();
  lab.network.silent.add("10.77.0.22");
  lab.b.mesh.apply([{ kind: "remove-policy", name: "default/allow-client1" }]);
  const client = lab.pod("outside").dial("10.77.0.22:8082");
  await quiet();
  lab.b.mesh.apply([
    {
      kind: "policy",
      policy: {
        name: "nobody",
        namespace: "default",
        scope: "Namespace",
        action: "Allow",
        dryRun: false,
        rules: [],
      },
    },
  ]);
  await quiet();
  assert.equal(client.readEnd, "reset");
  await lab.clock.advance(10_000);
  const errors = lab.b.log.of("access").map(({ fields }) => Object.fromEntries(fields)["error"]);
  assert.deepEqual(errors, ["connection closed due to policy change"]);
});
