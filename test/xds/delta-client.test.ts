/** The conversation with a control plane, against what the real one said. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { decodeAddress } from "../../src/wire/address-resource.ts";
import { decodeAuthorization } from "../../src/wire/authorization-resource.ts";
import {
  ADDRESS_TYPE,
  AUTHORIZATION_TYPE,
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponse,
} from "../../src/wire/delta-discovery.ts";
import {
  DeltaClient,
  type NodeDescription,
  type ResourceSink,
} from "../../src/xds/delta-client.ts";
import {
  type RecordedMessage,
  recordedOriginal,
  recordedScenario,
  recordedScenarios,
} from "../support/istiod-recording.ts";

/** What a sink was told, and what it holds. */
class RecordingSink implements ResourceSink {
  readonly held = new Map<string, Uint8Array>();
  readonly kept = new Map<string, string>();
  readonly told: string[] = [];
  readonly #check: (bytes: Uint8Array) => unknown;

  constructor(check: (bytes: Uint8Array) => unknown = () => undefined) {
    this.#check = check;
  }

  put(name: string, version: string, bytes: Uint8Array): void {
    this.#check(bytes);
    this.held.set(name, bytes.slice());
    this.kept.set(name, version);
    this.told.push(`put ${name}`);
  }

  refused(name: string, bytes: Uint8Array | undefined): void {
    this.told.push(`refused ${name}, ${bytes?.length ?? "no"} bytes`);
  }

  remove(name: string): void {
    this.held.delete(name);
    this.kept.delete(name);
    this.told.push(`remove ${name}`);
  }

  commit(): void {
    this.told.push("commit");
  }

  versionOf(name: string): string | undefined {
    return this.kept.get(name);
  }

  versions(): Iterable<readonly [string, string]> {
    return this.kept;
  }

  refusals(): Iterable<string> {
    return [];
  }
}

const NODE: NodeDescription = { id: "ztunnel~10.0.0.1~z.istio-system~x", metadata: { NAME: "z" } };

function setup(
  options: { onDemand?: boolean; offeredBytesMax?: number; node?: NodeDescription } = {},
) {
  const addresses = new RecordingSink(decodeAddress);
  const policies = new RecordingSink(decodeAuthorization);
  const client = new DeltaClient(
    [
      { url: ADDRESS_TYPE, onDemand: options.onDemand ?? false, sink: addresses },
      { url: AUTHORIZATION_TYPE, onDemand: false, sink: policies },
    ],
    { node: options.node ?? NODE, offeredBytesMax: options.offeredBytesMax ?? 3_500_000 },
  );
  return { client, addresses, policies };
}

function answer(fields: Partial<DeltaDiscoveryResponse>): DeltaDiscoveryResponse {
  return {
    systemVersionInfo: "",
    resources: [],
    typeUrl: ADDRESS_TYPE,
    nonce: "n",
    removedResources: [],
    ...fields,
  };
}

/** A resource as the control plane of the recording would send it. */
function resource(name: string, version: string, aliases: string[] = []) {
  const recorded = recordedScenario("01").messages.flatMap((message) =>
    message.from === "server" ? message.response.resources : [],
  )[0];
  assert(recorded !== undefined);
  return { ...recorded, name, version, aliases };
}

function exchange(client: DeltaClient, response: DeltaDiscoveryResponse): DeltaDiscoveryRequest {
  const received = client.receive(response);
  while (received.step(7));
  return received.finish();
}

/** Plays the server's messages; what the client sends must be what was recorded. */
function replay(client: DeltaClient, messages: readonly RecordedMessage[]): void {
  const sent: DeltaDiscoveryRequest[] = [];
  const recorded: DeltaDiscoveryRequest[] = [];
  for (const message of messages) {
    if (message.from === "client") recorded.push(message.request);
    else sent.push(exchange(client, message.response));
  }
  const first = recorded.filter(({ node }) => node !== undefined);
  if (first.length > 0) {
    const demands = recorded.filter((r) => r.node === undefined && r.responseNonce === "");
    assert.deepEqual(demands, []);
  }
  const replies = recorded.filter(({ responseNonce }) => responseNonce !== "");
  assert.deepEqual(
    sent.map(({ responseNonce, errorDetail }) => ({ responseNonce, errorDetail })),
    replies.map(({ responseNonce, errorDetail }) => ({ responseNonce, errorDetail })),
  );
}

describe("the first requests of a stream", () => {
  for (const which of ["base", "full"] as const) {
    test(`are those of the original (${which})`, () => {
      const messages = recordedOriginal(which);
      const recorded = messages.flatMap((m) =>
        m.from === "client" && m.request.node ? [m.request] : [],
      );
      const node = recorded[0]?.node;
      assert(node?.metadata !== undefined);
      const { client } = setup({ node: { id: node.id, metadata: node.metadata } });
      assert.deepEqual(client.open(), recorded);
      replay(
        client,
        messages.filter((m) => m.from === "server" || m.request.node === undefined),
      );
    });
  }

  for (const number of ["60", "61", "62", "70", "89"]) {
    const { name, messages } = recordedScenario(number);
    test(`are those of the recording: ${name}`, () => {
      const recorded = messages.flatMap((m) =>
        m.from === "client" && m.request.node ? [m.request] : [],
      );
      const node = recorded[0]?.node;
      assert(node?.metadata !== undefined);
      const onDemand = recorded[0]?.resourceNamesSubscribe[0] === "*";
      const { client, addresses, policies } = setup({
        onDemand,
        node: { id: node.id, metadata: node.metadata },
      });
      for (const { typeUrl, initialResourceVersions } of recorded) {
        const { kept } = typeUrl === ADDRESS_TYPE ? addresses : policies;
        for (const [name, version] of initialResourceVersions) kept.set(name, version);
      }
      assert.deepEqual(client.open(), recorded);
    });
  }
});

describe("answers of a real control plane", () => {
  /** Those that were refused on purpose, or not answered, by whoever recorded them. */
  const answeredOtherwise = /^(50|53|54|55)-/;
  for (const { name, messages } of recordedScenarios()) {
    if (answeredOtherwise.test(name)) continue;
    test(`are all understood and acknowledged: ${name}`, () => {
      const { client } = setup({ onDemand: /^[78]\d|^9[0-2]/.test(name) });
      client.open();
      replay(
        client,
        messages.filter((m) => m.from === "server" || m.request.responseNonce !== ""),
      );
    });
  }

  test("played one after the other end in what a new stream gets at once", () => {
    const { client, addresses, policies } = setup();
    client.open();
    const history = recordedScenarios().filter(({ name }) => /^(01|[0-5]\d)-/.test(name));
    for (const { name, messages } of history) {
      if (name.startsWith("00-") || /^2[789]/.test(name)) continue;
      for (const message of messages)
        if (message.from === "server") exchange(client, message.response);
    }
    const fresh = setup();
    fresh.client.open();
    for (const message of recordedScenario("62").messages) {
      if (message.from === "server") exchange(fresh.client, message.response);
    }
    assert.deepEqual(addresses.kept, fresh.addresses.kept);
    assert.deepEqual(sorted(addresses.held), sorted(fresh.addresses.held));
    assert.deepEqual(sorted(policies.held), sorted(fresh.policies.held));
  });

  test("never leave a workload with a policy that does not come, once a change is through", () => {
    const { client, addresses, policies } = setup();
    client.open();
    for (const { name, messages } of recordedScenarios()) {
      if (!/^(01|[0-5]\d)-/.test(name) || name.startsWith("00-") || /^2[789]/.test(name)) continue;
      for (const message of messages) {
        if (message.from === "server") exchange(client, message.response);
      }
      for (const bytes of addresses.held.values()) {
        const resource = decodeAddress(bytes);
        if (resource.kind === "service") continue;
        for (const key of resource.workload.authorizationPolicies) {
          assert(policies.held.has(key), `${resource.workload.uid} names ${key} after ${name}`);
        }
      }
    }
  });
});

function sorted(held: ReadonlyMap<string, Uint8Array>): [string, string][] {
  return [...held]
    .map(([name, bytes]): [string, string] => [name, Buffer.from(bytes).toString("hex")])
    .sort();
}

describe("an answer", () => {
  test("puts in list order, then removes, then commits", () => {
    const { client, addresses } = setup();
    client.open();
    exchange(
      client,
      answer({ resources: [resource("b", "1"), resource("a", "1")], removedResources: ["c", "a"] }),
    );
    assert.deepEqual(addresses.told, ["put b", "put a", "remove c", "remove a", "commit"]);
    assert.deepEqual([...addresses.kept], [["b", "1"]]);
  });

  test("with a resource of the version that is held leaves it alone", () => {
    const { client, addresses } = setup();
    client.open();
    exchange(client, answer({ resources: [resource("a", "1")] }));
    exchange(client, answer({ resources: [resource("a", "1"), resource("b", "1")] }));
    assert.deepEqual(addresses.told, ["put a", "commit", "put b", "commit"]);
  });

  test("with resources that are not understood is refused with each reason, the others stay", () => {
    const { client, addresses } = setup();
    client.open();
    exchange(client, answer({ resources: [resource("a", "1")] }));
    const broken = { typeUrl: "", value: new Uint8Array() };
    const reply = exchange(
      client,
      answer({
        nonce: "n2",
        resources: [
          { ...resource("a", "2"), resource: broken },
          { ...resource("b", "1"), resource: undefined },
          resource("c", "1"),
        ],
      }),
    );
    assert.deepEqual(reply.errorDetail, {
      code: 0,
      message: "a: unknown address type; b: XDS payload without resource",
    });
    assert.equal(reply.responseNonce, "n2");
    assert.deepEqual([...addresses.held.keys()], ["a", "c"]);
    // The old version is what the next stream is offered, so that the new one comes again.
    assert.equal(addresses.kept.get("a"), "1");
    assert.equal(addresses.kept.has("b"), false);
    assert.deepEqual(
      addresses.told.filter((line) => line.startsWith("refused")),
      ["refused a, 0 bytes", "refused b, no bytes"],
    );
  });

  test("of which nothing is understood is refused in no more words than somebody reads", () => {
    const { client } = setup();
    client.open();
    const empty = { ...resource("w", "1"), resource: undefined };
    const resources = Array.from({ length: 60_000 }, (_, i) => ({ ...empty, name: `w${i}` }));
    const message = exchange(client, answer({ resources })).errorDetail?.message ?? "";
    const reasons = message.split("; ");
    assert.equal(reasons.length, 101);
    assert.equal(reasons[99], "w99: XDS payload without resource");
    assert.equal(reasons[100], "and 59900 more");
  });

  test("of an unknown type is acknowledged", () => {
    const { client } = setup();
    client.open();
    const received = client.receive(answer({ typeUrl: "type.googleapis.com/other", nonce: "x" }));
    assert.equal(received.known, false);
    assert.equal(received.step(1), false);
    const reply = received.finish();
    assert.equal(reply.responseNonce, "x");
    assert.equal(reply.errorDetail, undefined);
  });

  test("a fault of the sink is no fault of the resource", () => {
    const sink = new RecordingSink(() => {
      throw new TypeError("bug");
    });
    const client = new DeltaClient([{ url: ADDRESS_TYPE, onDemand: false, sink }], {
      node: NODE,
      offeredBytesMax: 1000,
    });
    client.open();
    assert.throws(() => exchange(client, answer({ resources: [resource("a", "1")] })), TypeError);
  });
});

describe("readiness", () => {
  test("needs an accepted answer of each type, even an empty one", () => {
    const { client } = setup();
    client.open();
    assert.deepEqual(client.missing(), [ADDRESS_TYPE, AUTHORIZATION_TYPE]);
    exchange(client, answer({ resources: [{ ...resource("b", "1"), resource: undefined }] }));
    assert.deepEqual(client.missing(), [ADDRESS_TYPE, AUTHORIZATION_TYPE]);
    exchange(client, answer({}));
    exchange(client, answer({ typeUrl: AUTHORIZATION_TYPE }));
    assert.deepEqual(client.missing(), []);
    client.open();
    assert.deepEqual(client.missing(), []);
  });

  test("on demand does not wait for addresses", () => {
    const { client } = setup({ onDemand: true });
    assert.deepEqual(client.missing(), [AUTHORIZATION_TYPE]);
  });
});

describe("a new stream", () => {
  test("is offered what was accepted", () => {
    const { client } = setup();
    assert.deepEqual(client.open()[0]?.initialResourceVersions, new Map());
    exchange(client, answer({ resources: [resource("a", "1"), resource("b", "2")] }));
    exchange(client, answer({ removedResources: ["a"] }));
    assert.deepEqual(client.open()[0]?.initialResourceVersions, new Map([["b", "2"]]));
  });

  test("is offered what may be; of the rest goes what its first answer leaves out", () => {
    const { client, addresses } = setup({ offeredBytesMax: 30 });
    client.open();
    exchange(client, answer({ resources: [resource("zero", "1"), resource("zwei", "1")] }));
    exchange(client, answer({ resources: [resource("one", "1"), resource("two", "1")] }));
    exchange(client, answer({ resources: [resource("three", "1"), resource("four", "1")] }));
    const offered = client.open()[0]?.initialResourceVersions;
    assert.deepEqual(
      offered,
      new Map([
        ["zero", "1"],
        ["zwei", "1"],
      ]),
    );
    addresses.told.length = 0;
    exchange(client, answer({ resources: [resource("two", "1"), resource("four", "2")] }));
    assert.deepEqual(addresses.told, ["put four", "remove one", "remove three", "commit"]);
    exchange(client, answer({ resources: [resource("five", "1")] }));
    assert.deepEqual([...addresses.held.keys()].sort(), ["five", "four", "two", "zero", "zwei"]);
  });

  test("of what is learnt on demand, too: it is asked for again when it is needed", () => {
    const { client, addresses } = setup({ onDemand: true, offeredBytesMax: 15 });
    client.open();
    for (const name of ["one", "two"]) {
      client.demand(ADDRESS_TYPE, `/${name}`, () => {});
      exchange(client, answer({ resources: [resource(name, "1", [`/${name}`])] }));
    }
    assert.deepEqual([...(client.open()[0]?.initialResourceVersions ?? [])], [["/one", ""]]);
    exchange(client, answer({}));
    assert.deepEqual([...addresses.held.keys()], []);
    assert(client.demand(ADDRESS_TYPE, "/two", () => {}) !== undefined);
  });
});

describe("on demand", () => {
  function demandSetup() {
    const world = setup({ onDemand: true });
    world.client.open();
    const answered: string[] = [];
    const demand = (key: string) =>
      world.client.demand(ADDRESS_TYPE, key, () => answered.push(key));
    return { ...world, answered, demand };
  }

  test("a request has the key and nothing else", () => {
    const { demand } = demandSetup();
    const sent = demand("/10.0.0.1");
    assert.deepEqual(sent?.resourceNamesSubscribe, ["/10.0.0.1"]);
    assert.equal(sent?.node, undefined);
    assert.equal(sent?.responseNonce, "");
  });

  test("an answer under another name wakes by its aliases, after the sink has it", () => {
    const { client, addresses } = setup({ onDemand: true });
    client.open();
    let held = 0;
    client.demand(ADDRESS_TYPE, "/10.244.2.30", () => (held = addresses.held.size));
    for (const m of recordedScenario("71").messages) {
      if (m.from === "server") {
        const [first] = m.response.resources;
        assert(first !== undefined);
        const resources = [{ ...first, aliases: [...first.aliases, "/10.244.2.30"] }];
        exchange(client, { ...m.response, resources });
      }
    }
    assert.equal(held, 1);
  });

  for (const number of ["71", "72", "73", "74", "75", "76", "78", "79", "80", "81", "82", "83"]) {
    const { name, messages } = recordedScenario(number);
    test(`the recorded answer wakes who asked: ${name}`, () => {
      const { client, answered, demand } = demandSetup();
      for (const message of messages) {
        if (message.from === "client") {
          if (message.request.responseNonce !== "") continue;
          const [key] = message.request.resourceNamesSubscribe;
          assert(key !== undefined);
          assert.deepEqual(demand(key), message.request);
        } else exchange(client, message.response);
      }
      assert.equal(answered.length, 1);
    });
  }

  test("a key that was answered on this stream is not asked again: nobody would answer", () => {
    const { client, answered, demand } = demandSetup();
    demand("/10.0.0.1");
    exchange(client, answer({ removedResources: ["/10.0.0.1"] }));
    assert.deepEqual(answered, ["/10.0.0.1"]);
    assert.equal(demand("/10.0.0.1"), undefined);
    assert.deepEqual(answered, ["/10.0.0.1", "/10.0.0.1"]);
  });

  test("several who wait for one key share the question and the answer", () => {
    const { client, answered, demand } = demandSetup();
    demand("/10.0.0.1");
    assert.equal(demand("/10.0.0.1"), undefined);
    exchange(client, answer({ removedResources: ["/10.0.0.1"] }));
    assert.equal(answered.length, 2);
  });

  test("the next stream asks for what was not answered", () => {
    const { client, answered, demand } = demandSetup();
    demand("/10.0.0.1");
    assert.deepEqual(client.open()[0]?.initialResourceVersions, new Map([["/10.0.0.1", ""]]));
    assert.equal(demand("/10.0.0.1"), undefined);
    exchange(client, answer({ removedResources: ["/10.0.0.1"] }));
    assert.equal(answered.length, 2);
  });

  test("who gave up is not called", () => {
    const { client } = setup({ onDemand: true });
    client.open();
    const answered = () => assert.fail("called");
    client.demand(ADDRESS_TYPE, "k", answered);
    client.abandon(ADDRESS_TYPE, "k", answered);
    exchange(client, answer({ removedResources: ["k"] }));
  });
});

test("a WireError of the sink is the resource's fault", () => {
  const { client } = setup();
  client.open();
  const bad = answer({
    resources: [{ ...resource("a", "1"), resource: { typeUrl: "", value: Uint8Array.of(1) } }],
  });
  assert.match(exchange(client, bad).errorDetail?.message ?? "", /^a: undecodable Address/);
});
