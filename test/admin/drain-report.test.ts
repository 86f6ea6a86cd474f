import assert from "node:assert/strict";
import { test } from "node:test";
import { formatDrain, reportDrain } from "../../src/admin/drain-report.ts";
import { parseSocketAddress, type SocketAddress } from "../../src/mesh/socket-address.ts";
import type { ConnectionSummary } from "../../src/proxy/connection-report.ts";

const SERVER = { uid: "u1", name: "server", namespace: "shop", serviceAccount: "server" };
const IDLE = { uid: "u2", name: "idle", namespace: "shop", serviceAccount: "idle" };
const at = (ip: string, port: number): SocketAddress =>
  parseSocketAddress(`${ip}:${port}`) ?? assert.fail(`${ip} is no address`);
/** 2026-11-23T10:00:00Z */
const TEN = 1_795_428_000_000;
const ARRIVED: ConnectionSummary = {
  source: at("10.0.0.1", 4000),
  originalDestination: "web.shop.svc",
  actualDestination: at("10.0.0.2", 8080),
  protocol: "HBONE",
};
const LEFT: ConnectionSummary = {
  source: at("10.0.0.2", 5000),
  originalDestination: undefined,
  actualDestination: at("10.0.0.9", 80),
  protocol: "TCP",
};
const deps = {
  workloads: [{ workload: SERVER }, { workload: IDLE }],
  connections: async (uid: string) =>
    uid === "u1" ? { inbound: [ARRIVED], outbound: [LEFT] } : { inbound: [], outbound: [] },
  now: TEN + 1240,
};

test("a daemon that is ending says until when and what it waits for", async () => {
  const report = await reportDrain({
    ...deps,
    times: {
      since: TEN,
      deadline: TEN + 5000,
    },
  });
  assert.deepEqual(report, {
    state: "DRAINING",
    since: "2026-11-23T10:00:00.000000Z",
    deadline: "2026-11-23T10:00:05.000000Z",
    remainingSeconds: 3.8,
    connections: { inbound: 1, outbound: 1 },
    workloads: [
      {
        uid: "u1",
        name: "server",
        namespace: "shop",
        inbound: [
          {
            src: "10.0.0.1:4000",
            originalDst: "web.shop.svc",
            actualDst: "10.0.0.2:8080",
            protocol: "HBONE",
          },
        ],
        outbound: [
          { src: "10.0.0.2:5000", originalDst: null, actualDst: "10.0.0.9:80", protocol: "TCP" },
        ],
      },
    ],
  });
  assert.equal(
    formatDrain(report),
    `draining since 2026-11-23T10:00:00.000000Z, for 3.8 s at most: 1 inbound and 1 outbound connections
shop/server  inbound  HBONE  10.0.0.1:4000 -> web.shop.svc
shop/server  outbound  TCP  10.0.0.2:5000 -> 10.0.0.9:80`,
  );
});

test("a daemon that is not ending counts its connections all the same", async () => {
  const report = await reportDrain({ ...deps, times: undefined });
  assert.deepEqual(Object.keys(report), ["state", "connections", "workloads"]);
  assert.equal(formatDrain(report).split("\n")[0], "live, 1 inbound and 1 outbound connections");
});

test("a daemon that is not ending tells which pods have left, and until when they are waited for", async () => {
  const workloads = [{ workload: SERVER, deadline: TEN + 5000 }, { workload: IDLE }];
  const report = await reportDrain({ ...deps, workloads, times: undefined });
  const [server] = report.workloads;
  assert.deepEqual(
    [server?.deadline, server?.remainingSeconds],
    ["2026-11-23T10:00:05.000000Z", 3.8],
  );
  assert.equal(
    formatDrain(report),
    `live, 1 inbound and 1 outbound connections
shop/server  inbound  HBONE  10.0.0.1:4000 -> web.shop.svc  left, for 3.8 s at most
shop/server  outbound  TCP  10.0.0.2:5000 -> 10.0.0.9:80  left, for 3.8 s at most`,
  );
});
