import assert from "node:assert/strict";
import { test } from "node:test";
import { reportSockets } from "../../src/admin/socket-report.ts";
import { ip } from "../support/mesh-fixture.ts";

test("a look at a pod is shown by owner and state, with the peers of its datagrams", () => {
  const ipv4 = { received: 12, sent: 9, unwanted: 1, errors: 0 };
  const ipv6 = { received: 0, sent: 0, unwanted: 0, errors: 0 };
  const quic = { ip: ip("2001:db8::1"), port: 443 };
  const report = reportSockets([
    {
      workload: { name: "web-1", namespace: "shop" },
      workloadName: "web",
      at: 1_795_435_200_000,
      census: {
        tcp: [
          { owner: "proxy", state: "listen", count: 6 },
          { owner: "proxy", state: "close_wait", count: 2 },
          { owner: "application", state: "close_wait", count: 40 },
        ],
        udp: { ipv4, ipv6 },
        connected: { count: 3, peers: [quic, { ip: ip("10.0.0.7"), port: 53 }, quic] },
      },
      bypassing: { received: 4, sent: 3 },
    },
  ]);
  assert.deepEqual(report, {
    pods: [
      {
        name: "web-1",
        namespace: "shop",
        workload: "web",
        lookedAt: "2026-11-23T12:00:00.000000Z",
        tcp: { proxy: { listen: 6, close_wait: 2 }, application: { close_wait: 40 } },
        udp: {
          bypassing: { received: 4, sent: 3 },
          ipv4,
          ipv6,
          connected: 3,
          peers: { "[2001:db8::1]:443": 2, "10.0.0.7:53": 1 },
        },
      },
    ],
  });
});
