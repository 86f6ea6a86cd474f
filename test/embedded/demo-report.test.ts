import assert from "node:assert/strict";
import { test } from "node:test";
import {
  formatDemoReport,
  movedMetrics,
  type TalkOutcome,
} from "../../src/embedded/demo-report.ts";

const FLOW = {
  source: "10.77.0.11:4000",
  destination: "10.77.0.21:15008",
  byteCount: 900,
  isTls: true,
  handshakeCount: 1,
  applicationDataCount: 7,
};

const GOOD: TalkOutcome = {
  clientIp: "10.77.0.11",
  target: "http://10.77.0.21:8080/",
  bulkTarget: "10.77.0.22:9000",
  marker: "swordfish",
  allowed: { answer: "200 hello 10.77.0.11, you said swordfish" },
  denied: { error: "read ECONNRESET" },
  bulk: { wantedBytes: 1 << 20, receivedBytes: 1 << 20, durationMs: 100 },
  wire: { flows: [FLOW], markerCount: 0 },
  markerInsidePodCount: 2,
  access: { "node-a": ["line a"], "node-b": ["line b"] },
  metrics: { before: { "node-a": "", "node-b": "" }, after: { "node-a": "", "node-b": "" } },
};

test("a good run has no mistakes and shows what each side saw", () => {
  const { text, mistakes } = formatDemoReport(GOOD);
  assert.deepEqual(mistakes, []);
  for (const part of [
    "200 hello 10.77.0.11, you said swordfish",
    "refused: read ECONNRESET",
    "1 MiB to 10.77.0.22:9000 → 0.10 s, 0.08 Gbit/s",
    "10.77.0.11:4000 → 10.77.0.21:15008  900 bytes, TLS records: 1 of the handshake in the clear, 7 encrypted (17 03 03)",
    '"swordfish" was readable in 2 segments inside the client\'s pod, in 0 on the wire',
    "line a",
    "line b",
    "All as it should be.",
  ]) {
    assert.ok(text.includes(part), part);
  }
});

for (const [name, change, mistake] of [
  [
    "another source address",
    { allowed: { answer: "200 hello 10.77.0.21, you said swordfish" } },
    /own address/,
  ],
  ["a client that was refused", { allowed: { error: "read ECONNRESET" } }, /own address/],
  ["an intruder that was served", { denied: { answer: "200 hello" } }, /intruder was served/],
  ["lost bytes", { bulk: { ...GOOD.bulk, receivedBytes: 1 } }, /bytes .* lost/],
  ["no tunnel", { wire: { flows: [], markerCount: 0 } }, /no tunnel/],
  [
    "plaintext on the wire",
    { wire: { flows: [{ ...FLOW, isTls: false }], markerCount: 0 } },
    /no TLS/,
  ],
  ["a readable secret", { wire: { flows: [FLOW], markerCount: 1 } }, /readable on the wire/],
  ["a blind capture", { markerInsidePodCount: 0 }, /capture is blind/],
] as const) {
  test(`${name} is a mistake that is told`, () => {
    const { text, mistakes } = formatDemoReport({ ...GOOD, ...change } as TalkOutcome);
    assert.equal(mistakes.length, 1);
    assert.match(mistakes[0] as string, mistake);
    assert.ok(text.includes(`NOT as it should be\n  ${mistakes[0]}`));
  });
}

test("metrics that moved are summed over the labels that are not shown", () => {
  const before = `# TYPE istio_tcp_connections_opened counter
istio_tcp_connections_opened_total{source_workload="client",destination_workload="server",x="1"} 1
istio_tcp_connections_opened_total{source_workload="client",destination_workload="server",x="2"} 1
istio_tcp_sent_bytes_total{reporter="source"} 5
workload_manager_active_proxy_count 0
`;
  const after = `istio_tcp_connections_opened_total{source_workload="client",destination_workload="server",x="1"} 2
istio_tcp_connections_opened_total{source_workload="client",destination_workload="server",x="2"} 3
istio_tcp_connections_failed_total{source_workload="a",destination_workload="b",response_flags="DENY"} 1
istio_tcp_sent_bytes_total{reporter="source"} 5
workload_manager_active_proxy_count 2
`;
  assert.deepEqual(
    movedMetrics(before, after).map((line) => line.replace(/ +/g, " ")),
    [
      "istio_tcp_connections_opened_total client → server +3",
      "istio_tcp_connections_failed_total a → b DENY +1",
    ],
  );
});
