/** A conversation from its first request to what proxies read. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Clock, systemClock } from "../../src/runtime/clock.ts";
import { encodeAddress } from "../../src/wire/address-resource.ts";
import { encodeAuthorization } from "../../src/wire/authorization-resource.ts";
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type Resource } from "../../src/wire/delta-discovery.ts";
import { DeltaClient } from "../../src/xds/delta-client.ts";
import { DiscoveryClient } from "../../src/xds/discovery-client.ts";
import { DiscoveryError } from "../../src/xds/discovery-transport.ts";
import { meshSubscription } from "../../src/xds/mesh-subscription.ts";
import { FakeClock, settle } from "../support/fake-clock.ts";
import { FakeDiscoveryStream } from "../support/fake-discovery-stream.ts";
import { ip, liveMesh, mesh, type WorkloadBuilder } from "../support/mesh-fixture.ts";
import { silentLogger } from "../support/silent-logger.ts";

function setup(options: { onDemand?: boolean; clock?: Clock } = {}) {
  const { clock = new FakeClock(), onDemand = false } = options;
  const state = liveMesh("node-1");
  const streams: FakeDiscoveryStream[] = [];
  const discovery = new DiscoveryClient(
    {
      transport: {
        open: async () => {
          const stream = new FakeDiscoveryStream();
          streams.push(stream);
          return stream;
        },
      },
      client: new DeltaClient(
        meshSubscription({ writer: state.writer, committed: () => {} }, { onDemand }),
        { node: { id: "id", metadata: {} }, offeredBytesMax: 3_500_000 },
      ),
      metrics: { received() {}, terminated() {} },
      connected() {},
      clock,
      random: { unit: () => 0.5, hex: () => "" },
      log: silentLogger,
    },
    { address: "https://istiod:15012", firstAnswerMs: 60_000, sliceMs: 1 },
  );
  const end = new AbortController();
  const ended = discovery.run(end.signal);
  const latest = (): FakeDiscoveryStream => {
    const stream = streams.at(-1);
    assert(stream !== undefined);
    return stream;
  };
  const stop = async (): Promise<void> => {
    end.abort();
    await ended;
  };
  return { state, discovery, clock, latest, stop };
}

function workloadResource({ value: workload }: WorkloadBuilder, version = "1"): Resource {
  const value = encodeAddress({ kind: "workload", workload });
  return { name: workload.uid, version, aliases: [], resource: { typeUrl: ADDRESS_TYPE, value } };
}

const BROKEN: Resource = {
  ...workloadResource(mesh.workload("broken")),
  name: "broken",
  resource: { typeUrl: ADDRESS_TYPE, value: Uint8Array.of(0x0a, 0x7f) },
};
const web = mesh.workload("web").at("10.0.0.1");
const db = mesh.workload("db").at("10.0.0.2");

test("caches are warm before anybody is unblocked", async () => {
  const { state, discovery, latest, stop } = setup();
  const policy = mesh.deny("all").scope("Global").value;
  let seen: unknown;
  void discovery.synced.then(() => {
    seen = [state.findWorkload(web.value.uid)?.name, state.policiesFor(web.value).policies.length];
  });
  await settle();
  latest().answer({ resources: [workloadResource(web)] });
  await settle();
  assert.equal(seen, undefined);
  const value = encodeAuthorization(policy);
  const resource = { typeUrl: AUTHORIZATION_TYPE, value };
  latest().answer({
    typeUrl: AUTHORIZATION_TYPE,
    resources: [{ name: "default/all", version: "", aliases: [], resource }],
  });
  await settle();
  assert.deepEqual(seen, ["web", 1]);
  await stop();
});

test("a reconnect echoes retained versions: of what was accepted, and nothing of the other type", async () => {
  const { clock, discovery, latest, stop } = setup();
  await settle();
  const offers = (): unknown =>
    latest()
      .sent.slice(0, 2)
      .map(({ typeUrl, initialResourceVersions }) => [typeUrl, [...initialResourceVersions]]);
  const nothing = [
    [ADDRESS_TYPE, []],
    [AUTHORIZATION_TYPE, []],
  ];
  assert.deepEqual(offers(), nothing);
  latest().answer({ resources: [workloadResource(web, "v1"), BROKEN] });
  await settle();
  assert.match(latest().sent.at(-1)?.errorDetail?.message ?? "", /^broken: /);
  discovery.reconnect();
  await (clock as FakeClock).advance(10);
  assert.deepEqual(offers(), [
    [ADDRESS_TYPE, [[web.value.uid, "v1"]]],
    [AUTHORIZATION_TYPE, []],
  ]);
  await stop();
});

test("who waits for a key finds it in the mesh, be the answer 10,000 resources long", async () => {
  const { state, discovery, latest, stop } = setup({ onDemand: true, clock: systemClock });
  await settle();
  const found = discovery.demand(ADDRESS_TYPE, web.value.uid, 60_000).then((answered) => {
    return [answered, state.findWorkload(web.value.uid)?.name, state.counts().workloads];
  });
  const crowd = Array.from({ length: 9999 }, (_, i) =>
    workloadResource(mesh.workload(`w${i}`).at(`10.1.${i >> 8}.${i & 255}`)),
  );
  latest().answer({ resources: [workloadResource(web), ...crowd] });
  assert.deepEqual(await found, [true, "web", 10_000]);
  await stop();
});

test("a stream that is aborted leaves the mesh as it is, and a removal on the next is honoured", async () => {
  const { state, clock, latest, stop } = setup();
  await settle();
  latest().answer({ resources: [workloadResource(web), workloadResource(db)] });
  await settle();
  latest().fail(new DiscoveryError("stream", "aborted", { status: "Aborted" }));
  await (clock as FakeClock).advance(1000);
  assert.equal(state.findWorkloadByAddress("", ip("10.0.0.1"))?.name, "web");
  latest().answer({ removedResources: [web.value.uid] });
  await settle();
  assert.equal(state.findWorkloadByAddress("", ip("10.0.0.1")), undefined);
  assert.equal(state.findWorkloadByAddress("", ip("10.0.0.2"))?.name, "db");
  await stop();
});
