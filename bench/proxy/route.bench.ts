/** Chooses routes in a mesh of 10,000 workloads behind 1,000 services. */
import assert from "node:assert/strict";
import { chooseOutboundRoute, type OutboundQuery } from "../../src/proxy/outbound-route.ts";
import { address, ip, mesh, seededRandom } from "../../test/support/mesh-fixture.ts";
import { report } from "../measure.ts";
import { timeCases } from "../timed-cases.ts";

const SERVICES = 1000;
const ENDPOINTS = 10;
const WP = "default/waypoint.default.svc.cluster.local";

const services = Array.from({ length: SERVICES }, (_, i) => {
  const service = mesh
    .service(`svc-${i}`)
    .at(`10.96.${i >> 8}.${i & 255}`)
    .port(80, 8080);
  if (i === 1) return service.waypoint(WP);
  return i === 2 ? service.balance("Failover", ["Network", "Region", "Zone"]) : service;
});
const workloads = services.flatMap((service, i) =>
  Array.from({ length: ENDPOINTS }, (_, k) =>
    mesh
      .workload(`w-${i}-${k}`)
      .at(`10.${k}.${i >> 8}.${i & 255}`)
      .locality("eu", `eu-${k % 3}`)
      .hbone()
      .behind(service),
  ),
);
const waypoint = mesh.service("waypoint").at("10.97.0.1").port(15008, 15008);
const crowd = mesh.service("crowd").at("10.97.0.2").port(80, 8080);
const state = mesh.state(
  ...services,
  ...workloads,
  waypoint,
  mesh.workload("waypoint").at("10.98.0.1").hbone().behind(waypoint),
  crowd,
  ...Array.from({ length: 1000 }, (_, i) =>
    mesh
      .workload(`crowd-${i}`)
      .at(`10.99.${i >> 8}.${i & 255}`)
      .hbone()
      .behind(crowd),
  ),
);
const source = mesh.workload("client").at("10.200.0.1").locality("eu", "eu-1").hbone().value;
const random = seededRandom(1);

function query(target: string): OutboundQuery {
  return {
    source,
    downstream: ip("10.200.0.1"),
    target: address(target),
    network: "",
    illegalPorts: new Set([15001, 15006, 15008]),
  };
}

const cases: readonly [name: string, target: string, kind: string][] = [
  ["a pod", "10.3.1.7:8080", "hbone"],
  ["a service of 10 endpoints", "10.96.1.7:80", "hbone"],
  ["a service of 10 endpoints by locality", "10.96.0.2:80", "hbone"],
  ["a service behind a waypoint", "10.96.0.1:80", "hbone"],
  ["a service of 1,000 endpoints", "10.97.0.2:80", "hbone"],
  ["an address outside the mesh", "192.0.2.1:443", "tcp"],
];
const work = cases.map(([name, target, kind]) => {
  const asked = query(target);
  assert.equal(chooseOutboundRoute(state, asked, random).kind, kind);
  const choose = (): void => {
    chooseOutboundRoute(state, asked, random);
  };
  return [`choose the route to ${name} (10k workloads, 1k services)`, choose] as const;
});
report(await timeCases(Object.fromEntries(work)));
