import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type ConfigDumpDeps, configDump } from "../../src/admin/config-dump.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import type { MeshState } from "../../src/state/mesh-state.ts";
import {
  ADDRESS_TYPE,
  AUTHORIZATION_TYPE,
  type DeltaDiscoveryResponse,
} from "../../src/wire/delta-discovery.ts";
import { DeltaClient } from "../../src/xds/delta-client.ts";
import { meshSubscription } from "../../src/xds/mesh-subscription.ts";
import {
  type RecordedMessage,
  recordedOriginal,
  recordedScenario,
  recordedScenarios,
  recordedText,
} from "../support/istiod-recording.ts";
import { address, liveMesh, mesh } from "../support/mesh-fixture.ts";

type RecordedResource = DeltaDiscoveryResponse["resources"][number];

/** The mesh after everything that istiod said. */
function replay(messages: readonly RecordedMessage[]): MeshState {
  const { mesh, take } = listener();
  for (const message of messages) if (message.from === "server") take(message.response);
  return mesh;
}

/** A mesh, and the client by which it learns. */
function listener(onDemand = false) {
  const mesh = liveMesh("node1");
  const committed = (): void => {};
  const client = new DeltaClient(
    meshSubscription({ writer: mesh.writer, committed }, { onDemand }),
    {
      node: { id: "", metadata: {} },
      offeredBytesMax: 1,
    },
  );
  client.open();
  const take = (response: DeltaDiscoveryResponse): void => {
    const exchange = client.receive(response);
    while (exchange.step(1000));
    assert.equal(exchange.finish().errorDetail, undefined);
  };
  return { mesh, take };
}

async function dump(deps: Partial<ConfigDumpDeps> & Pick<ConfigDumpDeps, "mesh">): Promise<string> {
  let text = "";
  const pieces = configDump(
    {
      certificates: () => [],
      workloads: () => [],
      connections: async () => ({ inbound: [], outbound: [] }),
      localMesh: () => [],
      clock: systemClock,
      ...deps,
    },
    { config: {}, version: {} },
  );
  for await (const piece of pieces) text += piece;
  return text;
}

/** A member of the dump as it is printed. */
function sectionOf(text: string, name: string): string {
  const found = new RegExp(`^  "${name}": (?:\\[\\]|\\{\\}|.*?\\n  [\\]}])`, "ms").exec(text);
  assert.ok(found, `${name} is in the dump`);
  return found[0];
}

/**
 * The original leaves two things to a hash map: the order of a workload's services, and that of
 * services with the same host name.
 */
function inOneOrder(text: string): string {
  const lists = text.replace(
    /( {6}"services": \[\n)(.*?)(\n {6}\])/gs,
    (_, open: string, list: string, close: string) =>
      `${open}${list.split(",\n").sort().join(",\n")}${close}`,
  );
  const hostname = (item: string): string => /\n {6}"hostname": (.*),\n/.exec(item)?.[1] ?? "";
  const items = lists.split(/(?<=\n {4}\}),(?=\n {4}\{)/);
  for (let i = 1; i < items.length; i++) {
    const [a, b] = [items[i - 1] as string, items[i] as string];
    if (hostname(a) !== "" && hostname(a) === hostname(b) && b < a)
      [items[i - 1], items[i]] = [b, a];
  }
  return items.join(",");
}

for (const which of ["base", "full"] as const) {
  for (const name of ["policies", "services", "stagedServices", "staticConfig", "workloads"]) {
    test(`after the recorded conversation "${which}", ${name} are dumped to the letter`, async () => {
      const expected = sectionOf(recordedText(`real-ztunnel/${which}/config_dump.json`), name);
      const dumped = sectionOf(await dump({ mesh: replay(recordedOriginal(which)) }), name);
      assert.equal(inOneOrder(dumped), inOneOrder(expected));
    });
  }
}

test("after all recorded changes the mesh is dumped as one that was learnt at once", async () => {
  // Of a stream of its own, or recorded at another time.
  const isApart = /^(00|2[789])-/;
  const history = recordedScenarios().filter(
    ({ name }) => /^[0-5]\d-/.test(name) && !isApart.test(name),
  );
  assert.ok(history.length > 40);
  const [changed, fresh] = await Promise.all(
    [history, [recordedScenario("62")]].map((scenarios) =>
      dump({ mesh: replay(scenarios.flatMap(({ messages }) => messages)) }),
    ),
  );
  for (const name of ["policies", "services", "stagedServices", "workloads"]) {
    const [left, right] = [changed, fresh].map((text) => inOneOrder(sectionOf(text ?? "", name)));
    assert.equal(left, right);
  }
});

describe("after each recorded conversation the mesh is dumped as one that was learnt at once, and names no policy that never comes:", () => {
  const all = recordedScenarios();
  /** One stream each; what was recorded on another day begins with the full state of that day. */
  const streams: readonly (readonly [name: string, pattern: RegExp, first?: string])[] = [
    ["an empty cluster", /^00-/],
    ["changes", /^(?!00|2[789])[0-5]\d-/],
    ["nothing to say at a reconnect", /^60-/, "62"],
    ["changes while away", /^61-/, "62"],
    ["no versions at a reconnect", /^62-/],
    ["policies, later", /^2[789]b?-/, "62"],
    ["on demand", /^(7\d|8[0-8])-/],
    ["on demand, the node's own pods", /^88[bc]-/, "70"],
    ["on demand, again", /^(89|9[0-2])-/, "70"],
    ...["93", "94", "95", "96", "97"].map((number) => [number, new RegExp(`^${number}-`)] as const),
  ];
  const played = new Set<string>();
  for (const [what, pattern, first] of streams) {
    const scenarios = all.filter(({ name }) => pattern.test(name));
    test(`${what}, ${scenarios.length} scenarios`, async () => {
      const { mesh, take } = listener(what.startsWith("on demand"));
      /** The last word about each resource. */
      const known = new Map<string, RecordedResource>();
      const hear = (response: DeltaDiscoveryResponse): void => {
        take(response);
        const key = (name: string): string => `${response.typeUrl} ${name}`;
        for (const resource of response.resources) known.set(key(resource.name), resource);
        for (const name of response.removedResources) known.delete(key(name));
      };
      const begin = first === undefined ? [] : recordedScenario(first).messages;
      for (const message of begin) if (message.from === "server") hear(message.response);
      for (const { name, messages } of scenarios) {
        played.add(name);
        for (const message of messages) if (message.from === "server") hear(message.response);
        const fresh = listener();
        for (const typeUrl of [ADDRESS_TYPE, AUTHORIZATION_TYPE]) {
          const resources = [...known]
            .filter(([key]) => key.startsWith(`${typeUrl} `))
            .map(([, resource]) => resource);
          fresh.take({
            ...{ systemVersionInfo: "", nonce: "", removedResources: [] },
            ...{ typeUrl, resources },
          });
        }
        const dumps = await Promise.all([mesh, fresh.mesh].map((one) => dump({ mesh: one })));
        for (const section of ["policies", "services", "stagedServices", "workloads"]) {
          const [left, right] = dumps.map((text) => inOneOrder(sectionOf(text, section)));
          assert.equal(left, right, `${section} after ${name}`);
        }
        const { workloads } = JSON.parse(dumps[0] ?? "") as { workloads: { uid: string }[] };
        for (const { uid } of workloads) {
          const workload = mesh.findWorkload(uid);
          assert.ok(workload !== undefined, uid);
          assert.deepEqual(mesh.policiesFor(workload).unknown, [], `${uid} after ${name}`);
        }
      }
    });
  }

  test("which is all of them", () => {
    assert.deepEqual([...played].sort(), all.map(({ name }) => name).sort());
    assert.equal(all.length, 82);
  });
});

test("endpoints of services that are not known are staged", async () => {
  const state = liveMesh(undefined);
  const cart = mesh
    .workload("cart")
    .behind(mesh.service("cart").hostname("cart.default.svc"), { 80: 8080 }).value;
  state.apply([{ kind: "workload", workload: cart }]);
  const { stagedServices } = JSON.parse(await dump({ mesh: state }));
  assert.deepEqual(stagedServices, {
    "default/cart.default.svc": {
      [cart.uid]: { port: { 80: 8080 }, status: "Healthy", workloadUid: cart.uid },
    },
  });
});

test("pods are dumped with their connections once they are up", async () => {
  const pod = { name: "cart-1", namespace: "shop", serviceAccount: "cart" };
  const peer = address("10.0.0.1:4000");
  const own = address("[fd00::2]:8080");
  const { workloadState } = JSON.parse(
    await dump({
      mesh: liveMesh(undefined),
      workloads: () => [
        { workload: { uid: "b", ...pod }, state: "Pending" },
        { workload: { uid: "a", ...pod }, state: "Up" },
      ],
      connections: async () => ({
        inbound: [
          {
            source: peer,
            originalDestination: undefined,
            actualDestination: own,
            protocol: "TCP",
          },
          {
            source: peer,
            originalDestination: "cart.shop.svc",
            actualDestination: own,
            protocol: "HBONE",
          },
        ],
        outbound: [
          { source: own, originalDestination: peer, actualDestination: peer, protocol: "HBONE" },
        ],
      }),
    }),
  );
  const [src, actualDst] = ["10.0.0.1:4000", "[fd00::2]:8080"];
  assert.deepEqual(Object.keys(workloadState), ["a", "b"]);
  assert.deepEqual(workloadState, {
    a: {
      connections: {
        inbound: [
          { src, originalDst: null, actualDst, protocol: "TCP" },
          { src, originalDst: "cart.shop.svc", actualDst, protocol: "HBONE" },
        ],
        outbound: [{ src: actualDst, originalDst: src, actualDst: src, protocol: "HBONE" }],
      },
      info: pod,
      state: "Up",
    },
    b: { info: pod, state: "Pending" },
  });
});

test("the mesh file is dumped as it is now", async () => {
  const { staticConfig } = JSON.parse(
    await dump({
      mesh: liveMesh(undefined),
      localMesh: () => [
        { kind: "workload", workload: mesh.workload("cart").value },
        { kind: "service", service: mesh.service("cart").value },
        { kind: "policy", policy: mesh.allow("all").value },
      ],
    }),
  );
  const names = (list: readonly { readonly name: string }[]) => list.map(({ name }) => name);
  assert.deepEqual(names(staticConfig.workloads), ["cart"]);
  assert.deepEqual(names(staticConfig.services), ["cart"]);
  assert.deepEqual(names(staticConfig.policies), ["all"]);
});

test("a large mesh leaves the thread to others every few milliseconds", async () => {
  const state = liveMesh(undefined);
  for (let i = 0; i < 3000; i++) {
    state.apply([{ kind: "workload", workload: mesh.workload(`pod-${i}`).value }]);
  }
  let turns = 0;
  let dumping = true;
  const others = (): void => {
    turns++;
    if (dumping) systemClock.after(0, others);
  };
  systemClock.after(0, others);
  const text = await dump({ mesh: state });
  dumping = false;
  assert.equal(JSON.parse(text).workloads.length, 3000);
  assert.ok(turns > 5, `${turns} turns of others`);
});
