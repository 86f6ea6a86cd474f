/** Applies what a control plane sends: everything at once, and one pod at a time. */
import assert from "node:assert/strict";
import { asUpdate, liveMesh, mesh } from "../../test/support/mesh-fixture.ts";
import { report } from "../measure.ts";
import { timeCases } from "../timed-cases.ts";

const SERVICES = 100;
const ENDPOINTS = 10;

const services = Array.from({ length: SERVICES }, (_, i) =>
  mesh
    .service(`svc-${i}`)
    .at(`10.96.${i >> 8}.${i & 255}`)
    .port(80, 8080),
);
const crowd = mesh.service("crowd").at("10.97.0.1").port(80, 8080);
const pods = services.flatMap((service, i) =>
  Array.from({ length: ENDPOINTS }, (_, k) =>
    mesh
      .workload(`w-${i}-${k}`)
      .at(`10.${k}.${i >> 8}.${i & 255}`)
      .hbone()
      .behind(service, { 80: 8080 })
      .behind(crowd, { 80: 8080 }),
  ),
);
const everything = [crowd, ...services, ...pods].map(asUpdate);

const full = liveMesh("node-1");
full.apply(everything);
assert.deepEqual(full.counts(), { workloads: 1000, services: 101, policies: 0 });
assert.equal(full.findService("default", crowd.value.hostname)?.endpoints.size, 1000);

const [pod] = pods;
assert(pod !== undefined);
const flips = [asUpdate(pod.unhealthy()), asUpdate(pod)];
const same = [asUpdate(pod)];
let flip = 0;

report(
  await timeCases({
    "apply 1k workloads and 100 services to an empty state": () => {
      liveMesh("node-1").apply(everything);
    },
    "apply 1k workloads and 100 services again unchanged": () => {
      full.apply(everything);
    },
    "apply one pod's health (behind services of 10 and 1k endpoints)": () => {
      const update = flips[flip++ & 1];
      if (update !== undefined) full.apply([update]);
    },
    "apply one pod unchanged": () => {
      full.apply(same);
    },
  }),
);
