import assert from "node:assert/strict";
import { test } from "node:test";
import { LogFieldGroup, type LogFields } from "../../src/telemetry/logger.ts";
import { createRootLogger, type RootLogger } from "../../src/telemetry/root-logger.ts";
import { FakeClock } from "../support/fake-clock.ts";

/** 2026-11-23T01:51:51.046648Z */
const RECORDED_AT = 1_795_398_711_046.648;

function recordingLogger(
  format: "plain" | "json",
  filter: string,
): { readonly logger: RootLogger; readonly lines: string[] } {
  const lines: string[] = [];
  const sink = { write: (line: string) => void lines.push(line), flush: () => {} };
  const clock = new FakeClock(RECORDED_AT);
  return { logger: createRootLogger({ format, filter, sink, clock }), lines };
}

const ACCESS_FIELDS: LogFields = [
  ["src.addr", { bare: "10.77.0.11:25140" }],
  ["src.workload", "client1"],
  ["dst.addr", { bare: "10.77.0.21:15008" }],
  ["direction", "outbound"],
  ["bytes_sent", 11],
  ["bytes_recv", 22],
  ["duration", "15ms"],
];

test("a plain line has tab-separated columns and key=value fields", () => {
  const { logger, lines } = recordingLogger("plain", "info");
  logger.root.target("access").write("info", "connection complete", ACCESS_FIELDS);
  assert.deepEqual(lines, [
    '2026-11-23T01:51:51.046648Z\tinfo\taccess\tconnection complete\tsrc.addr=10.77.0.11:25140 src.workload="client1" dst.addr=10.77.0.21:15008 direction="outbound" bytes_sent=11 bytes_recv=22 duration="15ms"\n',
  ]);
});

test("a JSON line has the keys level, time, scope, message, then the fields with their types", () => {
  const { logger, lines } = recordingLogger("json", "info");
  logger.root.target("access").write("info", "connection complete", ACCESS_FIELDS);
  assert.deepEqual(lines, [
    '{"level":"info","time":"2026-11-23T01:51:51.046648Z","scope":"access","message":"connection complete","src.addr":"10.77.0.11:25140","src.workload":"client1","dst.addr":"10.77.0.21:15008","direction":"outbound","bytes_sent":11,"bytes_recv":22,"duration":"15ms"}\n',
  ]);
});

test("fields of a group are written as if they stood there, in every line anew", () => {
  const group = new LogFieldGroup([
    ["src.workload", 'client"1'],
    ["dst.addr", { bare: "10.77.0.21:15008" }],
  ]);
  const expected = {
    plain: 'bytes_sent=1 src.workload="client\\"1" dst.addr=10.77.0.21:15008 bytes_recv=2\n',
    json: '"bytes_sent":1,"src.workload":"client\\"1","dst.addr":"10.77.0.21:15008","bytes_recv":2}\n',
  };
  for (const format of ["plain", "json"] as const) {
    const { logger, lines } = recordingLogger(format, "info");
    for (let i = 0; i < 2; i++) {
      logger.root.write("info", "done", [["bytes_sent", 1], group, ["bytes_recv", 2]]);
    }
    for (const line of lines) assert.equal(line.slice(-expected[format].length), expected[format]);
    assert.equal(lines.length, 2);
  }
});

test("a plain line without fields keeps the tab after the message, and its target loses ztunnel::", () => {
  const { logger, lines } = recordingLogger("plain", "info");
  logger.root.write("info", "set file descriptor limits from 20000 to 20000");
  logger.root.target("ztunnel::inpod::statemanager").write("info", "received snapshot sent");
  assert.deepEqual(lines, [
    "2026-11-23T01:51:51.046648Z\tinfo\tztunnel\tset file descriptor limits from 20000 to 20000\t\n",
    "2026-11-23T01:51:51.046648Z\tinfo\tinpod::statemanager\treceived snapshot sent\t\n",
  ]);
});

test("spans follow the target in plain lines, outermost first", () => {
  const { logger, lines } = recordingLogger("plain", "info");
  const state = logger.root
    .target("ztunnel::state")
    .span("proxy", [["wl", { bare: "default/server3" }]]);
  const inbound = state.span("inbound", [
    ["id", { bare: "9e32" }],
    ["peer", { bare: "10.77.0.11:24284" }],
  ]);
  inbound.write("info", "dry-run: deny policy match", [["policy", "default/dry-run-deny"]]);
  logger.root.target("ztunnel::xds").span("local_client", []).write("info", "ready");
  assert.deepEqual(lines, [
    '2026-11-23T01:51:51.046648Z\tinfo\tstate:proxy{wl=default/server3}:inbound{id=9e32 peer=10.77.0.11:24284}\tdry-run: deny policy match\tpolicy="default/dry-run-deny"\n',
    "2026-11-23T01:51:51.046648Z\tinfo\txds:local_client\tready\t\n",
  ]);
});

test("spans are objects behind the fields in JSON lines", () => {
  const { logger, lines } = recordingLogger("json", "info");
  logger.root
    .target("ztunnel::drain")
    .span("proxy", [["wl", { bare: "default/server2" }]])
    .span("outbound", [])
    .write("warn", "shutdown complete", [["component", "inbound passthrough"]]);
  assert.deepEqual(lines, [
    '{"level":"warn","time":"2026-11-23T01:51:51.046648Z","scope":"ztunnel::drain","message":"shutdown complete","component":"inbound passthrough","proxy":{"wl":"default/server2"},"outbound":{}}\n',
  ]);
});

test("a quoted value can't leave its line or its quotes", () => {
  const { logger, lines } = recordingLogger("plain", "info");
  logger.root.write("info", "odd", [["error", 'a "b" \\ \n\t\r\0 \u001b[0m \u2028 é ✓']]);
  assert.deepEqual(lines, [
    '2026-11-23T01:51:51.046648Z\tinfo\tztunnel\todd\terror="a \\"b\\" \\\\ \\n\\t\\r\\0 \\u{1b}[0m \\u{2028} é ✓"\n',
  ]);
});

test("lines below the level of their target are not written and not formatted", () => {
  const { logger, lines } = recordingLogger("plain", "warn,access=info");
  const access = logger.root.target("access");
  assert.equal(access.enabled("info"), true);
  assert.equal(access.enabled("debug"), false);
  access.write("debug", "connection opened");
  logger.root.write("info", "quiet");
  assert.deepEqual(lines, []);
});

test("a change of the filter reaches loggers that exist already", () => {
  const { logger, lines } = recordingLogger("plain", "info");
  const derived = logger.root.target("ztunnel::state").span("proxy", []);
  assert.equal(derived.enabled("debug"), false);
  logger.setFilter("off,ztunnel::state=debug");
  assert.equal(derived.enabled("debug"), true);
  assert.equal(logger.root.enabled("error"), false);
  derived.write("debug", "fetch workload");
  assert.equal(lines.length, 1);
  assert.equal(logger.filter.format(), "ztunnel::state=debug,off");
});

test("a filter that can't be parsed is refused and the old one stays", () => {
  const { logger } = recordingLogger("plain", "info");
  assert.throws(() => logger.setFilter("a=b=c"), { code: "log-filter" });
  assert.equal(logger.filter.format(), "info");
});
