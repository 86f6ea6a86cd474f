/**
 * The server's half of discovery, against what the real one said: it is asked what was asked in the
 * recording, over the same mesh, and has to say the same. Except where istiod says more or less than
 * its clients need, which they survive and a server need not imitate:
 *
 * | istiod | recorded | ours | why |
 * |---|---|---|---|
 * | sends workloads of a changed service again as they were | 10, 42, 85 | does not | equal versions are no news |
 * | names as removed what was never there | 27, 28, 41 | does not | policies that it can't express; nobody has them |
 * | hides new workloads of a service that was asked for | 87, 88 | tells them | a client could not know of them otherwise |
 * | forgets all keys when one is unsubscribed, and removes them | 90 | forgets the one, silently | no proxy unsubscribes; if one did, it would lose its mesh |
 * | knows the type istio.workload.Workload | workload-type | answers with nothing, as to any unknown type | no proxy asks for it |
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { DiscoveryConversation, NodeError } from "../../src/embedded/discovery-conversation.ts";
import { MeshSnapshot } from "../../src/embedded/mesh-snapshot.ts";
import { parseIpAddress } from "../../src/mesh/ip-address.ts";
import { decodeAddress, encodeAddress } from "../../src/wire/address-resource.ts";
import {
  ADDRESS_TYPE,
  AUTHORIZATION_TYPE,
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponse,
} from "../../src/wire/delta-discovery.ts";
import { FakeClock } from "../support/fake-clock.ts";
import {
  type RecordedScenario,
  recordedOriginal,
  recordedScenario,
  recordedScenarios,
  recordedText,
} from "../support/istiod-recording.ts";

/** Resources of both types by name, as the recording has them: bytes and versions. */
class RecordedMesh {
  readonly #bytes = {
    [ADDRESS_TYPE]: new Map<string, Uint8Array>(),
    [AUTHORIZATION_TYPE]: new Map<string, Uint8Array>(),
  };
  /** Recorded version → ours. */
  readonly #versions = new Map<string, string>();

  take(response: DeltaDiscoveryResponse): void {
    const bytes = this.of(response.typeUrl);
    for (const name of response.removedResources) bytes.delete(name);
    for (const { name, resource } of response.resources) {
      if (resource !== undefined) bytes.set(name, resource.value);
    }
    const { addresses } = this.snapshot();
    for (const { name, version } of response.resources) {
      const ours = addresses.get(name)?.version;
      if (version !== "" && ours !== undefined) this.#versions.set(`${name} ${version}`, ours);
    }
  }

  of(typeUrl: string): Map<string, Uint8Array> {
    const bytes = this.#bytes[typeUrl as typeof ADDRESS_TYPE];
    assert(bytes !== undefined, typeUrl);
    return bytes;
  }

  snapshot(): MeshSnapshot {
    return new MeshSnapshot(this.of(ADDRESS_TYPE), this.of(AUTHORIZATION_TYPE));
  }

  /** A recorded request with our versions in place of istiod's. */
  translate(request: DeltaDiscoveryRequest): DeltaDiscoveryRequest {
    const versions = [...request.initialResourceVersions].map(
      ([name, version]) => [name, this.#versions.get(`${name} ${version}`) ?? version] as const,
    );
    return { ...request, initialResourceVersions: new Map(versions) };
  }
}

/** What of a response does not depend on the run. */
interface Said {
  readonly typeUrl: string;
  readonly resources: readonly string[];
  readonly removed: readonly string[];
}

function said({ typeUrl, resources, removedResources }: DeltaDiscoveryResponse): Said {
  return {
    typeUrl,
    resources: resources
      .map(({ name, version, aliases, resource }) => {
        assert.equal(version === "", typeUrl === AUTHORIZATION_TYPE, `version of ${name}`);
        const value = Buffer.from(resource?.value ?? []).toString("base64");
        return `${name} [${aliases.join(" ")}] ${value}`;
      })
      .sort(),
    removed: removedResources.toSorted(),
  };
}

/** The recorded answers without what the table above excuses. */
function expected(responses: readonly DeltaDiscoveryResponse[], before: RecordedMesh): Said[] {
  return responses
    .map((response) => {
      const known = before.of(response.typeUrl);
      const { resources, removedResources } = response;
      return said({
        ...response,
        resources: resources.filter(({ name, resource }) => {
          const former = known.get(name);
          return former === undefined || Buffer.compare(former, resource?.value ?? former) !== 0;
        }),
        removedResources: removedResources.filter((name) => known.has(name)),
      });
    })
    .filter(({ resources, removed }) => resources.length + removed.length > 0);
}

const clock = new FakeClock();

function requestsOf({ messages }: RecordedScenario): DeltaDiscoveryRequest[] {
  return messages.flatMap((message) => (message.from === "client" ? [message.request] : []));
}

function responsesOf({ messages }: RecordedScenario): DeltaDiscoveryResponse[] {
  return messages.flatMap((message) => (message.from === "server" ? [message.response] : []));
}

function request(typeUrl: string, fields: Partial<DeltaDiscoveryRequest> = {}) {
  return {
    node: undefined,
    typeUrl,
    resourceNamesSubscribe: [],
    resourceNamesUnsubscribe: [],
    initialResourceVersions: new Map<string, string>(),
    responseNonce: "",
    errorDetail: undefined,
    ...fields,
  };
}

/** Everything, as of the scenario's own first answers. */
function meshOf(scenario: RecordedScenario): RecordedMesh {
  const mesh = new RecordedMesh();
  for (const response of responsesOf(scenario)) mesh.take(response);
  return mesh;
}

/** Asks a new conversation what was asked in a scenario. */
function converse(
  scenario: RecordedScenario,
  mesh: RecordedMesh,
): { readonly conversation: DiscoveryConversation; readonly answers: Said[] } {
  const conversation = new DiscoveryConversation(mesh.snapshot(), clock);
  return { conversation, answers: ask(conversation, scenario, mesh) };
}

function ask(
  conversation: DiscoveryConversation,
  scenario: RecordedScenario,
  mesh: RecordedMesh,
): Said[] {
  return requestsOf(scenario)
    .flatMap((asked) => conversation.receive(mesh.translate(asked)).responses)
    .map(said);
}

/** Each push is at most one answer of each type, addresses first. */
function pushesOf(scenario: RecordedScenario): readonly (readonly DeltaDiscoveryResponse[])[] {
  const pushes: DeltaDiscoveryResponse[][] = [];
  for (const response of responsesOf(scenario)) {
    const last = pushes.at(-1);
    if (last === undefined || response.typeUrl === ADDRESS_TYPE) pushes.push([response]);
    else last.push(response);
  }
  return pushes;
}

/** The mesh changes as it did in a recorded push, of which the stream must be told. */
function tell(
  conversation: DiscoveryConversation,
  mesh: RecordedMesh,
  push: readonly DeltaDiscoveryResponse[],
): void {
  const wanted = expected(push, mesh);
  for (const response of push) mesh.take(response);
  assert.deepEqual(conversation.update(mesh.snapshot()).map(said), wanted);
}

/** Recorded after the others, on other streams. */
const LATE = /^(27|28|29|88b|88c|93|94|95|96|97)/;

describe("a wildcard stream", () => {
  const history = recordedScenarios().filter(({ name }) => name < "60" && !LATE.test(name));
  const mesh = new RecordedMesh();
  const [, initial, ...changes] = history;
  assert(initial !== undefined);

  for (const response of responsesOf(initial)) mesh.take(response);
  const { conversation, answers } = converse(initial, mesh);

  test("begins with everything, addresses first, without aliases", () => {
    assert.deepEqual(answers, responsesOf(initial).map(said));
  });

  for (const scenario of changes) {
    // Between tests nothing runs, so that each finds the mesh that the one before has left.
    test(`is told of ${scenario.name} what istiod told`, () => {
      for (const push of pushesOf(scenario)) tell(conversation, mesh, push);
      assert.deepEqual(ask(conversation, scenario, mesh), []);
    });
  }

  test("ends with the mesh that a new stream is told in full", () => {
    const fresh = recordedScenario("62");
    assert.deepEqual(converse(fresh, mesh).answers, responsesOf(fresh).map(said));
  });

  for (const number of ["60", "61"]) {
    const scenario = recordedScenario(number);
    test(`is told only what it lacks: ${scenario.name}`, () => {
      assert.deepEqual(converse(scenario, mesh).answers, responsesOf(scenario).map(said));
    });
  }

  for (const number of ["27", "28", "29", "29b"]) {
    const scenario = recordedScenario(number);
    test(`is told of ${scenario.name} what istiod told`, () => {
      const late = meshOf(recordedScenario("62"));
      const stream = converse(recordedScenario("62"), late);
      for (const push of pushesOf(scenario)) tell(stream.conversation, late, push);
    });
  }

  test("is told of a change that comes and goes between two pushes nothing", () => {
    assert.deepEqual(conversation.update(mesh.snapshot()), []);
  });
});

describe("a new stream is told everything:", () => {
  for (const number of ["00", "93", "94", "95", "96", "97"]) {
    const scenario = recordedScenario(number);
    test(scenario.name, () => {
      const { answers } = converse(scenario, meshOf(scenario));
      assert.deepEqual(answers, responsesOf(scenario).map(said));
    });
  }

  for (const which of ["base", "full"] as const) {
    test(`to the original, ${which}`, () => {
      const scenario = { name: which, messages: recordedOriginal(which) };
      const { answers, conversation } = converse(scenario, meshOf(scenario));
      assert.deepEqual(answers, responsesOf(scenario).map(said));
      assert.equal(conversation.node?.nodeName, "node1");
    });
  }
});

describe("an on-demand stream", () => {
  const mesh = meshOf(recordedScenario("62"));
  const first = recordedScenario("70");
  const { conversation, answers } = converse(first, mesh);

  test("begins with the workloads of its own node and all policies", () => {
    assert.deepEqual(answers, responsesOf(first).map(said));
  });

  const demands = [71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83];
  for (const scenario of demands.map((number) => recordedScenario(String(number)))) {
    test(`is answered: ${scenario.name}`, () => {
      assert.deepEqual(ask(conversation, scenario, mesh), responsesOf(scenario).map(said));
    });
  }

  test("hears nothing of a service that it has not asked for (84)", () => {
    change(mesh, "shop/frontend.shop.svc.cluster.local");
    assert.deepEqual(conversation.update(mesh.snapshot()), []);
  });

  for (const number of ["85", "86"]) {
    const scenario = recordedScenario(number);
    test(`is told of what it has asked for: ${scenario.name}`, () => {
      tell(conversation, mesh, responsesOf(scenario));
    });
  }

  test("is told of workloads that join and leave a service (87, 88; istiod is silent)", () => {
    const uid = "Kubernetes//Pod/shop/db-2";
    mesh.of(ADDRESS_TYPE).set(uid, anotherWorkload(mesh, "Kubernetes//Pod/shop/db-1", uid));
    const [added] = conversation.update(mesh.snapshot()).map(said);
    assert.match(added?.resources[0] ?? "", /^Kubernetes\/\/Pod\/shop\/db-2 \[\/10\.244\.2\.99\] /);
    mesh.of(ADDRESS_TYPE).delete(uid);
    const [removed] = conversation.update(mesh.snapshot()).map(said);
    assert.deepEqual(removed, { typeUrl: ADDRESS_TYPE, resources: [], removed: [uid] });
  });

  test("is told of workloads that come to its node and leave it (88b, 88c)", () => {
    const [came, left] = [recordedScenario("88b"), recordedScenario("88c")];
    for (const scenario of [came, left]) tell(conversation, mesh, responsesOf(scenario));
  });

  test("that begins again is told what it lacks, and keys of nothing (89 to 92)", () => {
    const again = recordedScenario("89");
    const { conversation: next, answers: told } = converse(again, mesh);
    assert.deepEqual(told, responsesOf(again).map(said));

    assert.deepEqual(ask(next, recordedScenario("90"), mesh), []);
    change(mesh, "Kubernetes//Pod/plain/legacy-0");
    assert.deepEqual(next.update(mesh.snapshot()), []);
    const demand = recordedScenario("92");
    assert.deepEqual(ask(next, demand, mesh), responsesOf(demand).map(said));
  });

  test("keeps its keys where others are told by name", () => {
    const { conversation: stream } = converse(first, mesh);
    const asked = (key: string) =>
      stream
        .receive(request(ADDRESS_TYPE, { resourceNamesSubscribe: [key] }))
        .responses.map(said)[0];
    assert.deepEqual(asked("/10.99.9.9")?.removed, ["/10.99.9.9"]);
    // It exists now: a change is told to whoever asked before, too.
    const uid = "Kubernetes//Pod/shop/late";
    mesh
      .of(ADDRESS_TYPE)
      .set(uid, anotherWorkload(mesh, "Kubernetes//Pod/shop/db-1", uid, [10, 99, 9, 9]));
    const [told] = stream.update(mesh.snapshot()).map(said);
    assert.match(told?.resources[0] ?? "", /^Kubernetes\/\/Pod\/shop\/late \[\/10\.99\.9\.9\] /);
    assert.equal(asked("/10.99.9.9"), undefined);
  });
});

describe("what a client says of answers", () => {
  const scenario = recordedScenario("01");
  const mesh = meshOf(scenario);

  test("a NACK is told once, with the client's reason, and nothing is sent again", () => {
    const { conversation } = converse(scenario, mesh);
    const change22 = recordedScenario("50");
    for (const response of responsesOf(change22)) mesh.take(response);
    const [push] = conversation.update(mesh.snapshot());
    const refusal = requestsOf(change22)[0];
    assert(refusal?.errorDetail !== undefined && push !== undefined);
    const stale = conversation.receive(refusal);
    assert.deepEqual(stale, { responses: [], nack: undefined });
    const told = conversation.receive({ ...refusal, responseNonce: push.nonce });
    assert.deepEqual(told, {
      responses: [],
      nack: { typeUrl: AUTHORIZATION_TYPE, reason: refusal.errorDetail.message },
    });
    assert.deepEqual(conversation.update(mesh.snapshot()), []);
  });
});

interface ErrorCase {
  readonly case: string;
  readonly what: string;
  readonly request: {
    readonly node?: { id?: string; metadata?: Record<string, unknown> };
    readonly typeUrl: string;
  };
  readonly grpcStatus: string;
  readonly grpcMessage: string;
  readonly responses: readonly { readonly typeUrl: string; readonly resources: number }[];
}

describe("a first request is judged as istiod judges it:", () => {
  const cases = JSON.parse(recordedText("xds-errors/cases.json")) as readonly ErrorCase[];
  const mesh = meshOf(recordedScenario("62"));
  /** About the transport or the caller, not about what is said. */
  const elsewhere =
    /token|wrong-audience|service-account|pod-bound|clusterid|plaintext|over-4MiB|half-close/;
  /** Types that no proxy asks for. */
  const unserved = new Set(["workload-type"]);
  for (const known of cases.filter((one) => !elsewhere.test(one.case))) {
    if (unserved.has(known.case)) continue;
    test(`${known.case}, ${known.what}`, () => {
      const conversation = new DiscoveryConversation(mesh.snapshot(), clock);
      const { typeUrl, node } = known.request;
      const asked = request(typeUrl, {
        node:
          node === undefined
            ? undefined
            : { id: node.id ?? "", cluster: "", metadata: node.metadata },
      });
      if (known.grpcStatus === "INVALID_ARGUMENT") {
        assert.throws(
          () => conversation.receive(asked),
          (error: unknown) => {
            assert(error instanceof NodeError);
            // What Go's JSON reader adds after the metadata is its own affair.
            const [recorded] = known.grpcMessage.split("): ");
            assert.equal(error.message.replace(/\)$/, ""), recorded);
            return true;
          },
        );
        return;
      }
      const { responses } = conversation.receive(asked);
      const follow = FOLLOW_UPS[known.case]?.(responses[0]?.nonce ?? "");
      const answers = follow?.flatMap((more) => conversation.receive(more).responses) ?? responses;
      assert.deepEqual(
        answers.map((answer) => ({ typeUrl: answer.typeUrl, resources: answer.resources.length })),
        known.responses,
      );
    });
  }
});

/** What those cases sent after the first answer. */
const FOLLOW_UPS: Readonly<Record<string, (nonce: string) => readonly DeltaDiscoveryRequest[]>> = {
  "stale-nonce": (nonce) =>
    ["unknown", nonce, nonce].map((responseNonce) => request(ADDRESS_TYPE, { responseNonce })),
  "duplicate-subscribe": () => [request(ADDRESS_TYPE)],
  "named-subscribe-on-wildcard": () => [
    request(ADDRESS_TYPE, { resourceNamesSubscribe: ["/10.244.2.11"] }),
  ],
};

/** Its bytes get another ending that no reader minds. */
function change(mesh: RecordedMesh, name: string): void {
  const bytes = mesh.of(ADDRESS_TYPE).get(name);
  assert(bytes !== undefined, name);
  const resource = decodeAddress(bytes);
  const changed =
    resource.kind === "service"
      ? { ...resource, service: { ...resource.service, ports: new Map([[1, 1]]) } }
      : { ...resource, workload: { ...resource.workload, canonicalName: "changed" } };
  mesh.of(ADDRESS_TYPE).set(name, encodeAddress(changed));
}

/** The bytes of a workload like another, on the same node. */
function anotherWorkload(
  mesh: RecordedMesh,
  like: string,
  uid: string,
  ip: readonly number[] = [10, 244, 2, 99],
): Uint8Array {
  const resource = decodeAddress(mesh.of(ADDRESS_TYPE).get(like) ?? new Uint8Array());
  assert(resource.kind === "workload");
  const address = parseIpAddress(ip.join("."));
  assert(address !== undefined);
  return encodeAddress({ ...resource, workload: { ...resource.workload, uid, ips: [address] } });
}
