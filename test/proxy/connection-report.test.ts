import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type ConnectionDescription,
  ConnectionReporter,
} from "../../src/proxy/connection-report.ts";
import { TRAFFIC_LABELS, TrafficMetrics } from "../../src/proxy/traffic-metrics.ts";
import { parseBaggage } from "../../src/wire/baggage.ts";
import { CapturedLog } from "../support/captured-log.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { address, mesh } from "../support/mesh-fixture.ts";

const client = mesh.workload("client").at("10.0.0.1").hbone().value;
const gateway = mesh.workload("gw").at("10.9.9.9").hbone().value;
const identity = { trustDomain: "td", namespace: "n", serviceAccount: "far" };

const THROUGH_GATEWAY: ConnectionDescription = {
  reporter: "source",
  source: address("10.0.0.1:4711"),
  originalDestination: address("10.96.0.1:80"),
  actualDestination: address("10.9.9.9:15008"),
  sourceWorkload: client,
  sourceBaggage: undefined,
  sourceIdentity: { ...identity, serviceAccount: "client" },
  destination: address("10.9.9.9:15008"),
  hboneAuthority: "echo.default.svc.cluster.local:80",
  destinationService: mesh.service("echo").value,
  destinationWorkload: gateway,
  far: undefined,
  mutualTls: true,
};

/** The destination's side of a report. */
function report(far: ConnectionDescription["far"]): {
  readonly fields: Record<string, unknown>;
  readonly labels: Record<string, string | undefined>;
  readonly protocol: string;
} {
  const log = new CapturedLog("info");
  const traffic = new TrafficMetrics();
  const reporter = new ConnectionReporter({ log: log.root, traffic, clock: new FakeClock() });
  const opened = reporter.opened({ ...THROUGH_GATEWAY, far }, 0);
  const { protocol } = opened.summary;
  opened.finished(undefined);
  const { labels } = traffic.collect().series[0] ?? { labels: [] };
  const isDestination = ([name]: readonly [string, unknown]): boolean =>
    /^(dst\.|desti)/.test(name);
  return {
    fields: Object.fromEntries((log.lines[0]?.fields ?? []).filter(isDestination)),
    labels: Object.fromEntries(
      TRAFFIC_LABELS.map((name, i) => [name, labels[i]] as const).filter(isDestination),
    ),
    protocol,
  };
}

test("who answers from another network is described by itself, not by the gateway", () => {
  const baggage = parseBaggage(
    "k8s.cluster.name=far-cluster,k8s.namespace.name=n,k8s.deployment.name=app,service.name=canon,service.version=v9,cloud.region=r,cloud.availability_zone=z",
  );
  const { fields, labels, protocol } = report({ baggage, identity });
  assert.equal(protocol, "DOUBLEHBONE");
  assert.deepEqual(
    ["dst.workload", "dst.namespace", "dst.identity", "dst.cluster"].map((name) => fields[name]),
    ["canon", "n", "spiffe://td/ns/n/sa/far", "far-cluster"],
  );
  assert.deepEqual(labels, {
    destination_service: "echo.default.svc.cluster.local",
    destination_service_namespace: "default",
    destination_service_name: "echo",
    destination_workload: "app",
    destination_canonical_service: "canon",
    destination_canonical_revision: "v9",
    destination_workload_namespace: "n",
    destination_principal: "spiffe://td/ns/n/sa/far",
    destination_app: "app",
    destination_version: "v9",
    destination_cluster: "far-cluster",
    destination_region: "r",
    destination_zone: "z",
  });
});

test("where it says nothing of itself only what it proved is known", () => {
  const { fields, labels } = report({ baggage: undefined, identity });
  assert.deepEqual(
    ["dst.workload", "dst.namespace", "dst.identity", "dst.cluster"].map((name) => fields[name]),
    [undefined, undefined, "spiffe://td/ns/n/sa/far", undefined],
  );
  assert.equal(labels["destination_principal"], "spiffe://td/ns/n/sa/far");
  assert.equal(labels["destination_workload"], "unknown");
  assert.equal(labels["destination_cluster"], "unknown");
});

test("until it has answered the gateway is the destination", () => {
  const { fields, labels, protocol } = report(undefined);
  assert.equal(protocol, "HBONE");
  assert.equal(fields["dst.workload"], "gw");
  assert.equal(labels["destination_workload"], "gw");
});
