import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  EndpointOutliers,
  type OutlierChange,
  type OutlierOptions,
} from "../../src/state/endpoint-outliers.ts";
import { chooseEndpoint } from "../../src/state/load-balancer.ts";
import { findUpstream, type Upstream } from "../../src/state/upstream.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { address, fixedRandom, mesh, seededRandom } from "../support/mesh-fixture.ts";

const OPTIONS: OutlierOptions = {
  consecutiveFailures: 3,
  windowMs: 60_000,
  baseEjectionMs: 30_000,
  ejectionMaxMs: 70_000,
  ejectionMaxPercent: 50,
};

const svc = mesh.service("svc").at("10.96.0.1").port(80, 8080);
const client = mesh.workload("client").at("10.0.0.1");

/** A service of so many endpoints, all found as connections find them. */
function makeLab(count: number, options: Partial<OutlierOptions> = {}) {
  const clock = new FakeClock();
  const changes: OutlierChange[] = [];
  const outliers = new EndpointOutliers(
    { clock, changed: (change) => void changes.push(change) },
    { ...OPTIONS, ...options },
  );
  const workloads = Array.from({ length: count }, (_, i) =>
    mesh
      .workload(`w${i}`)
      .at(`10.0.1.${i + 1}`)
      .behind(svc),
  );
  const state = mesh.state(svc, client, ...workloads);
  const known = state.findService("default", svc.value.hostname);
  assert.ok(known);
  const endpoint = (i: number): Upstream => {
    const tried = new Set(workloads.flatMap(({ value }, j) => (i === j ? [] : [value.uid])));
    const lookup = findUpstream(
      state,
      {
        network: "",
        source: client.value,
        target: address("10.96.0.1:80"),
        mode: "standard",
        bias: { tried },
      },
      fixedRandom(),
    );
    assert.equal(lookup.kind, "found");
    return lookup.kind === "found" ? lookup.upstream : assert.fail();
  };
  const random = seededRandom(3);
  const chosen = (): string[] => {
    const names = new Set<string>();
    const query = { source: client.value, port: 80, mode: "standard", bias: { outliers } } as const;
    for (let i = 0; i < 200; i++) {
      names.add(chooseEndpoint(known, query, random)?.workload.name ?? "none");
    }
    return [...names].sort();
  };
  const fail = (i: number, times = 3): void => {
    for (let n = 0; n < times; n++) outliers.failed(endpoint(i));
  };
  const told = (): string[] =>
    changes.splice(0).map(({ kind, outlier: { workload, failures, ejectionMs } }) => {
      return `${kind} ${workload} ${failures} ${ejectionMs}`;
    });
  return { clock, outliers, endpoint, chosen, fail, told };
}

test("an endpoint is left out after as many failures in a row as configured, for the base time", async () => {
  const { clock, chosen, fail, told } = makeLab(3);
  fail(0, 2);
  assert.deepEqual(chosen(), ["w0", "w1", "w2"]);
  fail(0, 1);
  assert.deepEqual(chosen(), ["w1", "w2"]);
  await clock.advance(29_999);
  assert.deepEqual(chosen(), ["w1", "w2"]);
  await clock.advance(1);
  assert.deepEqual(chosen(), ["w0", "w1", "w2"]);
  assert.deepEqual(told(), ["ejected default/w0 3 30000", "returned default/w0 3 30000"]);
});

test("failures with a success or more than the window between them are not in a row", async () => {
  const { clock, outliers, endpoint, fail, told } = makeLab(3);
  fail(0, 2);
  outliers.succeeded(endpoint(0));
  fail(0, 2);
  await clock.advance(60_001);
  fail(0, 2);
  assert.deepEqual(told(), []);
  await clock.advance(60_000);
  fail(0, 1);
  assert.deepEqual(told(), ["ejected default/w0 3 30000"]);
});

test("one that comes back is on trial, and is left out longer each time up to the maximum", async () => {
  const { clock, fail, told } = makeLab(3);
  fail(0);
  for (const ms of [30_000, 60_000, 70_000, 70_000]) {
    assert.deepEqual(told().at(-1)?.split(" ").at(-1), String(ms));
    await clock.advance(ms);
    told();
    fail(0, 1);
  }
});

test("one that stayed as long as it was left out begins anew", async () => {
  const { clock, outliers, endpoint, fail, told } = makeLab(3);
  fail(0);
  await clock.advance(30_000);
  outliers.succeeded(endpoint(0));
  await clock.advance(29_999);
  fail(0);
  assert.deepEqual(told().at(-1), "ejected default/w0 3 60000");
  await clock.advance(60_000);
  outliers.succeeded(endpoint(0));
  await clock.advance(60_000);
  fail(0);
  assert.deepEqual(told().at(-1), "ejected default/w0 3 30000");
});

test("a connection that comes about takes an endpoint back at once", async () => {
  const { clock, outliers, endpoint, chosen, fail, told } = makeLab(3);
  fail(0);
  outliers.succeeded(endpoint(0));
  assert.deepEqual(chosen(), ["w0", "w1", "w2"]);
  assert.equal(told().length, 2);
  assert.equal(clock.pendingCount, 0);
});

test("never the last endpoint is left out, nor more than the share, but one where there are two", () => {
  for (const [count, percent, out] of [
    [1, 100, 0],
    [2, 1, 1],
    [2, 100, 1],
    [4, 50, 2],
    [5, 50, 2],
    [5, 100, 4],
  ] as const) {
    const { chosen, fail, told } = makeLab(count, { ejectionMaxPercent: percent });
    for (let i = 0; i < count; i++) fail(i, 5);
    assert.equal(told().length, out, `of ${count} at ${percent} %`);
    assert.equal(chosen().length, count - out);
  }
});

test("when nobody else can serve, one that is left out does", () => {
  const { outliers, endpoint, fail } = makeLab(2);
  fail(0);
  const known = endpoint(0).service;
  assert.ok(known);
  const bias = { outliers, tried: new Set([endpoint(1).workload.uid]) };
  const query = { source: client.value, port: 80, mode: "standard", bias } as const;
  assert.equal(chooseEndpoint(known, query, fixedRandom())?.workload.name, "w0");
});

test("nothing but the service's endpoints is judged, each port by itself", () => {
  const { outliers, endpoint, fail, told } = makeLab(3);
  for (let i = 0; i < 9; i++) outliers.failed({ ...endpoint(0), service: undefined });
  assert.deepEqual(told(), []);
  fail(0);
  assert.equal(outliers.leftOut(svc.value, 80)?.size, 1);
  assert.equal(outliers.leftOut(svc.value, 81), undefined);
});

test("whatever happens, an endpoint is left, the share holds and all come back in time", async () => {
  const step = fc.record({
    endpoint: fc.nat(5),
    comesAbout: fc.boolean(),
    waitMs: fc.constantFrom(0, 1000, 40_000),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      const { clock, outliers, endpoint, chosen } = makeLab(6);
      for (const { endpoint: i, comesAbout, waitMs } of steps) {
        if (comesAbout) outliers.succeeded(endpoint(i));
        else outliers.failed(endpoint(i));
        assert.ok((outliers.leftOut(svc.value, 80)?.size ?? 0) <= 3);
        await clock.advance(waitMs);
      }
      assert.ok(chosen().length >= 3);
      await clock.advance(70_000);
      assert.equal(outliers.leftOut(svc.value, 80), undefined);
      assert.equal(clock.pendingCount, 0);
    }),
    { numRuns: 40 },
  );
});
