/** Discovery as a client of another make sees it: bytes and headers of the recorded original. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type ClientHttp2Session, connect, type IncomingHttpHeaders } from "node:http2";
import { after, test } from "node:test";
import { CallerCheck } from "../../src/embedded/caller-check.ts";
import { EmbeddedAuthority } from "../../src/embedded/certificate-authority.ts";
import { ControlPlaneServer } from "../../src/embedded/control-plane-server.ts";
import { DiscoveryService } from "../../src/embedded/discovery-service.ts";
import { MeshSnapshot } from "../../src/embedded/mesh-snapshot.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import {
  ADDRESS_TYPE,
  AUTHORIZATION_TYPE,
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponse,
  deltaDiscoveryMethod,
} from "../../src/wire/delta-discovery.ts";
import { recordedOriginal } from "../support/istiod-recording.ts";

const WIRE = new URL("../fixtures/istiod/real-ztunnel/base/wire/", import.meta.url);
const FIRST_REQUESTS = [1, 2].map((n) =>
  readFileSync(new URL(`00${n}-client-DeltaAggregatedResources.bin`, WIRE)),
);
const recorded = recordedOriginal("base").flatMap((message) =>
  message.from === "server" ? [message.response] : [],
);

const lines: string[] = [];
const [addresses, policies] = recorded.map(
  ({ resources }) =>
    new Map(resources.map(({ name, resource }) => [name, resource?.value ?? new Uint8Array()])),
);
assert(addresses !== undefined && policies !== undefined);
const authority = await EmbeddedAuthority.inMemory(systemClock);
const discovery = new DiscoveryService({
  callers: new CallerCheck({
    tokenFile: undefined,
    nodeTokenFiles: new Map(),
    clusterId: "Kubernetes",
  }),
  snapshot: new MeshSnapshot(addresses, policies),
  clock: systemClock,
  report: (line) => lines.push(line),
});
const server = await ControlPlaneServer.start(
  { authority, services: [discovery] },
  { listen: "127.0.0.1:0", names: [] },
);
const sessions: ClientHttp2Session[] = [];
after(() => {
  for (const session of sessions) session.destroy();
  server.close();
});

/** What the original sends to begin a stream, and nothing else. */
class OriginalStream {
  readonly #stream: ReturnType<ClientHttp2Session["request"]>;
  readonly headers: Promise<IncomingHttpHeaders>;
  readonly trailers: Promise<IncomingHttpHeaders>;
  #buffer: Buffer = Buffer.alloc(0);
  #arrived = Promise.withResolvers<void>();

  constructor() {
    const session = connect(`https://localhost:${server.port}`, { ca: authority.rootPem });
    sessions.push(session);
    this.#stream = session.request({
      ":method": "POST",
      ":path": deltaDiscoveryMethod.path,
      te: "trailers",
      "content-type": "application/grpc",
      authorization: "Bearer token",
      clusterid: "Kubernetes",
    });
    this.headers = new Promise((resolve) => this.#stream.once("response", resolve));
    this.trailers = new Promise((resolve) => this.#stream.once("trailers", resolve));
    this.#stream.on("data", (chunk: Buffer) => {
      this.#buffer = Buffer.concat([this.#buffer, chunk]);
      this.#arrived.resolve();
      this.#arrived = Promise.withResolvers();
    });
  }

  send(message: Uint8Array): void {
    const head = Buffer.alloc(5);
    head.writeUInt32BE(message.length, 1);
    this.#stream.write(Buffer.concat([head, message]));
  }

  request(request: Partial<DeltaDiscoveryRequest>): void {
    this.send(
      deltaDiscoveryMethod.requestSerialize({
        node: undefined,
        typeUrl: ADDRESS_TYPE,
        resourceNamesSubscribe: [],
        resourceNamesUnsubscribe: [],
        initialResourceVersions: new Map(),
        responseNonce: "",
        errorDetail: undefined,
        ...request,
      }),
    );
  }

  /** The next message. Compressed ones fail. */
  async next(): Promise<DeltaDiscoveryResponse> {
    while (this.#buffer.length < 5 || this.#buffer.length < 5 + this.#buffer.readUInt32BE(1)) {
      await this.#arrived.promise;
    }
    assert.equal(this.#buffer.readUInt8(0), 0, "not compressed");
    const end = 5 + this.#buffer.readUInt32BE(1);
    const message = this.#buffer.subarray(5, end);
    this.#buffer = this.#buffer.subarray(end);
    return deltaDiscoveryMethod.responseDeserialize(message);
  }

  end(): void {
    this.#stream.end();
  }
}

function sorted({ typeUrl, resources, removedResources }: DeltaDiscoveryResponse) {
  return {
    typeUrl,
    removedResources,
    resources: resources
      .map(({ name, aliases, resource }) => ({
        name,
        aliases,
        typeUrl: resource?.typeUrl,
        value: Buffer.from(resource?.value ?? []).toString("hex"),
      }))
      .sort((a, b) => (a.name < b.name ? -1 : 1)),
  };
}

test("the original's own requests are answered as istiod answered them", async () => {
  const stream = new OriginalStream();
  for (const bytes of FIRST_REQUESTS) stream.send(bytes);
  const answers = [await stream.next(), await stream.next()];
  assert.deepEqual(answers.map(sorted), recorded.map(sorted));
  const headers = await stream.headers;
  assert.equal(headers[":status"], 200);
  assert.equal(headers["content-type"], "application/grpc");
  assert.equal(headers["grpc-encoding"] ?? "identity", "identity");
  for (const { nonce, systemVersionInfo, resources, typeUrl } of answers) {
    assert.match(systemVersionInfo, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\/\d+$/);
    assert(nonce.startsWith(systemVersionInfo));
    for (const { version } of resources) {
      assert.match(version, typeUrl === ADDRESS_TYPE ? /^[0-9a-f]{16}$/ : /^$/);
    }
  }
  stream.end();
  assert.equal((await stream.trailers)["grpc-status"], "0");
});

test("a change is pushed to whoever is there, and a refusal of it is shown", async () => {
  const stream = new OriginalStream();
  for (const bytes of FIRST_REQUESTS) stream.send(bytes);
  await stream.next();
  await stream.next();
  const [policy] = policies.keys();
  assert(policy !== undefined);
  discovery.update(
    new MeshSnapshot(addresses, new Map([...policies].filter(([name]) => name !== policy))),
  );
  const push = await stream.next();
  assert.deepEqual(
    [push.typeUrl, push.resources, push.removedResources],
    [AUTHORIZATION_TYPE, [], [policy]],
  );
  const typeUrl = AUTHORIZATION_TYPE;
  const errorDetail = { code: 3, message: "not today" };
  stream.request({ typeUrl, responseNonce: push.nonce, errorDetail });
  // Messages are taken in order: the refusal is known once the next thing is answered.
  stream.request({ resourceNamesSubscribe: ["/10.0.0.1"] });
  await stream.next();
  assert.deepEqual(lines.slice(-3), [
    "proxy of node1: sent 0 policies, removed 1",
    "proxy of node1: refused policies: not today",
    `proxy of node1: sent ${addresses.size} addresses, removed 0`,
  ]);
  stream.end();
});

test("a first request of nobody is refused without any headers before", async () => {
  const stream = new OriginalStream();
  stream.request({});
  const headers = await stream.headers;
  assert.equal(headers["grpc-status"], "3");
  assert.equal(decodeURIComponent(String(headers["grpc-message"])), "missing node information");
});

test("bytes that are no request end the stream, and nothing else", async () => {
  const stream = new OriginalStream();
  stream.send(Buffer.from([0xff, 0xff, 0xff]));
  assert.equal((await stream.headers)["grpc-status"], "13");
  const next = new OriginalStream();
  for (const bytes of FIRST_REQUESTS) next.send(bytes);
  assert.equal((await next.next()).resources.length, addresses.size);
  next.end();
});

test("a control plane that ends tells its clients to connect anew", async () => {
  for (const session of sessions.splice(0)) session.destroy();
  const stream = new OriginalStream();
  for (const bytes of FIRST_REQUESTS) stream.send(bytes);
  await stream.next();
  const ended = server.shutDown();
  discovery.close();
  const trailers = await stream.trailers;
  assert.deepEqual(
    [trailers["grpc-status"], trailers["grpc-message"]],
    ["14", "transport%20is%20closing"],
  );
  stream.end();
  await ended;
  await assert.rejects(
    once(connect(`https://localhost:${server.port}`), "connect"),
    /ECONNREFUSED/,
  );
});
