import assert from "node:assert/strict";
import { test } from "node:test";
import type { RbacConnection } from "../../src/mesh/authorization.ts";
import type { IpAddress } from "../../src/mesh/ip-address.ts";
import { ConnectionTracker, describeConnection } from "../../src/proxy/connection-tracker.ts";
import type { Stoppable } from "../../src/proxy/live-set.ts";
import { workload } from "./recorded-mesh.ts";

const SERVER = workload("server1", "10.77.0.21");

const CONNECTION: RbacConnection = {
  source: { ip: "10.77.0.11" as IpAddress, port: 4000 },
  sourceIdentity: { trustDomain: "td", namespace: "ns", serviceAccount: "sa" },
  destination: { ip: "10.77.0.21" as IpAddress, port: 80 },
  destinationNetwork: "",
};

function member(): Stoppable {
  return { stop: () => {} };
}

test("connections with one tuple, network and host are one entry until the last is released", () => {
  const tracker = new ConnectionTracker();
  const [one, two] = [member(), member()];
  tracker.register(one, CONNECTION, SERVER, "host");
  tracker.register(two, { ...CONNECTION }, SERVER, "host");
  assert.equal(tracker.tracked().length, 1);
  assert.deepEqual([...(tracker.tracked()[0]?.members ?? [])], [one, two]);
  tracker.release(one);
  tracker.release(one);
  assert.deepEqual([...(tracker.tracked()[0]?.members ?? [])], [two]);
  tracker.release(two);
  assert.deepEqual(tracker.tracked(), []);
});

for (const [what, connection, host] of [
  ["source port", { ...CONNECTION, source: { ...CONNECTION.source, port: 4001 } }, "host"],
  ["identity", { ...CONNECTION, sourceIdentity: undefined }, "host"],
  ["target", { ...CONNECTION, destination: { ...CONNECTION.destination, port: 81 } }, "host"],
  ["network", { ...CONNECTION, destinationNetwork: "other" }, "host"],
  ["host", CONNECTION, undefined],
] as const) {
  test(`another ${what} is another entry`, () => {
    const tracker = new ConnectionTracker();
    tracker.register(member(), CONNECTION, SERVER, "host");
    tracker.register(member(), connection, SERVER, host);
    assert.equal(tracker.tracked().length, 2);
  });
}

test("keeps the workload as it was at first", () => {
  const tracker = new ConnectionTracker();
  tracker.register(member(), CONNECTION, SERVER, undefined);
  tracker.register(member(), CONNECTION, { ...SERVER, name: "renamed" }, undefined);
  assert.equal(tracker.tracked()[0]?.workload, SERVER);
});

test("describes a connection as operators read it", () => {
  assert.equal(
    describeConnection(CONNECTION),
    "10.77.0.11:4000(spiffe://td/ns/ns/sa/sa)->10.77.0.21:80",
  );
});
