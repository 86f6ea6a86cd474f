/** Discovery over gRPC against a server that behaves as istiod does, and against some that do not. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { CallerCheck, type CallerTokens } from "../../src/embedded/caller-check.ts";
import { EmbeddedAuthority } from "../../src/embedded/certificate-authority.ts";
import {
  ControlPlaneServer,
  type ControlPlaneServerOptions,
  type GrpcService,
} from "../../src/embedded/control-plane-server.ts";
import { DiscoveryService } from "../../src/embedded/discovery-service.ts";
import { MeshSnapshot } from "../../src/embedded/mesh-snapshot.ts";
import { IstiodLine, type IstiodLineOptions } from "../../src/istiod/istiod-line.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { systemRandom } from "../../src/runtime/random.ts";
import { ADDRESS_TYPE, deltaDiscoveryMethod } from "../../src/wire/delta-discovery.ts";
import { DeltaClient, type ResourceSink } from "../../src/xds/delta-client.ts";
import { DiscoveryClient, type TerminationReason } from "../../src/xds/discovery-client.ts";
import { DiscoveryError, type DiscoveryStream } from "../../src/xds/discovery-transport.ts";
import { GrpcTransport, type GrpcTransportOptions } from "../../src/xds/grpc-transport.ts";
import { recordedScenario } from "../support/istiod-recording.ts";
import { silentLogger } from "../support/silent-logger.ts";

const CONNECT_MS = 5000;
const scratch = await mkdtemp(join(tmpdir(), "ztunnel-transport-"));
const cleanUps: (() => void)[] = [];
after(async () => {
  for (const cleanUp of cleanUps) cleanUp();
  await rm(scratch, { recursive: true, force: true });
});
const authority = await EmbeddedAuthority.inMemory(systemClock);

/** The recorded mesh: 58 addresses, 9 policies. */
const ADDRESSES = 58;
const snapshot = recordedMesh();

function recordedMesh(): MeshSnapshot {
  const [addresses, policies] = recordedScenario("01").messages.flatMap((message) =>
    message.from === "server"
      ? [
          new Map(
            message.response.resources.map(({ name, resource }) => [
              name,
              resource?.value ?? new Uint8Array(),
            ]),
          ),
        ]
      : [],
  );
  return new MeshSnapshot(addresses ?? new Map(), policies ?? new Map());
}

interface Serving {
  readonly port: number;
  readonly lines: readonly string[];
  close(): void;
}

async function serve(
  options: Partial<ControlPlaneServerOptions & CallerTokens> = {},
): Promise<Serving> {
  const lines: string[] = [];
  const callers = new CallerCheck({
    tokenFile: undefined,
    nodeTokenFiles: new Map(),
    clusterId: "Kubernetes",
    ...options,
  });
  const discovery = new DiscoveryService({
    callers,
    snapshot,
    clock: systemClock,
    report: (line) => lines.push(line),
  });
  const server = await start([discovery], options);
  return { port: server.port, lines, close: () => server.close() };
}

async function start(
  services: readonly GrpcService[],
  options: Partial<ControlPlaneServerOptions> = {},
): Promise<ControlPlaneServer> {
  const server = await ControlPlaneServer.start(
    { authority, services },
    { listen: "127.0.0.1:0", names: [], ...options },
  );
  cleanUps.push(() => server.close());
  return server;
}

function transport(
  port: number,
  options: Partial<IstiodLineOptions> = {},
  limits: Partial<GrpcTransportOptions> = {},
): GrpcTransport {
  const line = new IstiodLine({
    address: `https://127.0.0.1:${port}`,
    roots: { kind: "pem", pem: authority.rootPem },
    alternateHostname: undefined,
    token: undefined,
    clusterId: "Kubernetes",
    headers: [],
    tls: { tls12: false, postQuantumOnly: false },
    ...options,
  });
  return new GrpcTransport(
    { line, clock: systemClock },
    {
      connectMs: CONNECT_MS,
      receivedBytesMax: 1_000_000,
      ...limits,
    },
  );
}

const NODE = {
  id: "ztunnel~10.0.0.1~z.istio-system~istio-system.svc.cluster.local",
  metadata: { NODE_NAME: "node1" },
};

function makeClient(offeredBytesMax = 3_500_000): {
  readonly client: DeltaClient;
  /** Name → version. */
  readonly names: Map<string, string>;
} {
  const names = new Map<string, string>();
  const sink: ResourceSink = {
    put: (name, version) => names.set(name, version),
    refused: () => undefined,
    remove: (name) => names.delete(name),
    commit: () => undefined,
    versionOf: (name) => names.get(name),
    versions: () => names,
    refusals: () => [],
  };
  const types = [{ url: ADDRESS_TYPE, onDemand: false, sink }];
  return { client: new DeltaClient(types, { node: NODE, offeredBytesMax }), names };
}

async function opened(from: GrpcTransport): Promise<DiscoveryStream> {
  const stream = await from.open();
  cleanUps.push(() => stream.close());
  for (const request of makeClient().client.open()) stream.send(request);
  return stream;
}

/** How many resources the first answer brings. */
async function firstAnswer(from: GrpcTransport): Promise<number> {
  const stream = await opened(from);
  const received = await stream.next();
  stream.close();
  return received?.response.resources.length ?? 0;
}

async function failure(promise: Promise<unknown>): Promise<DiscoveryError> {
  try {
    await promise;
  } catch (error) {
    assert(error instanceof DiscoveryError, String(error));
    return error;
  }
  return assert.fail("no error");
}

/** A client that keeps the conversation going, and what it went through. */
function converse(by: GrpcTransport, firstAnswerMs = 10_000) {
  const { client, names } = makeClient();
  const endings: TerminationReason[] = [];
  const discovery = new DiscoveryClient(
    {
      transport: by,
      client,
      metrics: { received: () => undefined, terminated: (reason) => endings.push(reason) },
      connected: () => undefined,
      clock: systemClock,
      random: systemRandom(),
      log: silentLogger,
    },
    { address: "https://127.0.0.1", firstAnswerMs, sliceMs: 5 },
  );
  const abort = new AbortController();
  cleanUps.push(() => abort.abort());
  void discovery.run(abort.signal);
  return { discovery, names, endings, stop: () => abort.abort() };
}

/** Looks every few milliseconds. */
async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) {
    await new Promise<void>((resolve) => systemClock.after(5, resolve, true));
  }
}

describe("a stream to a control plane", () => {
  test("brings the mesh", async () => {
    const { port, lines } = await serve();
    assert.equal(await firstAnswer(transport(port)), ADDRESSES);
    await until(() => lines.includes("proxy of node1: disconnected"));
    assert.deepEqual(lines, [
      "proxy of node1: connected",
      `proxy of node1: sent ${ADDRESSES} addresses, removed 0`,
      "proxy of node1: disconnected",
    ]);
  });

  test("is not opened where nobody listens, which is told at once and with the reason", async () => {
    const { port, close } = await serve();
    close();
    const error = await failure(firstAnswer(transport(port)));
    assert.deepEqual([error.code, error.status], ["connection", "Unavailable"]);
    assert.match(error.message, /ECONNREFUSED 127\.0\.0\.1:\d+$/);
  });

  test("is not opened to a server of another authority", async () => {
    const { port } = await serve();
    const other = await EmbeddedAuthority.inMemory(systemClock);
    const roots = { kind: "pem", pem: other.rootPem } as const;
    const error = await failure(firstAnswer(transport(port, { roots })));
    assert.deepEqual([error.code, error.status], ["connection", "Unavailable"]);
    assert.match(error.message, /self-signed certificate|unable to verify/);
  });

  test("is not opened to a server by another name, unless that name is the alternate", async () => {
    const { port } = await serve({ listen: "0.0.0.0:0", names: ["control.example"] });
    const address = `https://127.0.0.2:${port}`;
    for (const alternateHostname of [undefined, "other.example"]) {
      const error = await failure(firstAnswer(transport(0, { address, alternateHostname })));
      assert.deepEqual([error.code, error.status], ["connection", "Unavailable"]);
      assert.match(error.message, /127\.0\.0\.2 is not in the cert's list/);
    }
    const alternateHostname = "control.example";
    assert.equal(await firstAnswer(transport(0, { address, alternateHostname })), ADDRESSES);
  });

  test("needs roots that can be read", async () => {
    const roots = { kind: "file", path: join(scratch, "no-roots.pem") } as const;
    const error = await failure(transport(1, { roots }).open());
    assert.equal(error.code, "setup");
    assert.match(error.message, /^TLS Error: .*no-roots\.pem/);
  });
});

describe("the token", () => {
  const path = join(scratch, "token");
  const tokenFile = join(scratch, "expected");
  const token = { kind: "file", path } as const;

  test("is read for each stream; a missing or empty one is told before anybody is called", async () => {
    await writeFile(tokenFile, "first");
    const { port, lines } = await serve({ tokenFile });
    const by = transport(port, { token });
    for (const [content, message] of [
      [undefined, `can't read the token in ${path}`],
      [" \n", `the token in ${path} is empty`],
    ] as const) {
      if (content !== undefined) await writeFile(path, content);
      const error = await failure(by.open());
      assert.deepEqual([error.code, error.message], ["connection", message]);
    }
    assert.deepEqual(lines, []);
    await writeFile(path, "first\n");
    assert.equal(await firstAnswer(by), ADDRESSES);
    await writeFile(tokenFile, "second");
    const refused = await failure(firstAnswer(by));
    assert.deepEqual(
      [refused.code, refused.status, refused.message],
      ["connection", "Unauthenticated", "authentication failure"],
    );
    await writeFile(path, "second\n");
    assert.equal(await firstAnswer(by), ADDRESSES);
  });

  test("of one node does not open a stream for another", async () => {
    const nodeTokenFiles = new Map([["node2", join(scratch, "node2")]]);
    await writeFile(join(scratch, "node2"), "two");
    const { port, lines } = await serve({ nodeTokenFiles });
    const by = transport(port, { token: { kind: "literal", token: "two" } });
    const error = await failure(firstAnswer(by));
    assert.deepEqual(
      [error.code, error.status, error.message],
      [
        "connection",
        "PermissionDenied",
        "authorization failed: no identities ([node node2]) matched node node1",
      ],
    );
    assert.equal(lines[0], `proxy of node1: refused: ${error.message}`);
  });
});

test("a request over 4 MiB ends the stream as istiod ends it", async () => {
  const { port } = await serve();
  const stream = await transport(port).open();
  const { client, names } = makeClient(Number.POSITIVE_INFINITY);
  for (let i = 0; i < 60_000; i++) names.set(`${"x".repeat(70)}${i}`, "v");
  for (const request of client.open()) stream.send(request);
  const error = await failure(stream.next());
  assert.equal(error.status, "ResourceExhausted");
  assert.match(error.message, /larger than max \(\d+ vs\.? 4194304\)/i);
});

test("an answer that is bigger than may be ends the conversation, and is named", async () => {
  const { port } = await serve();
  const { discovery, endings, names, stop } = converse(
    transport(port, {}, { receivedBytesMax: 5000 }),
  );
  await until(() => endings.length > 0);
  stop();
  assert.equal(endings[0], "Error");
  assert.match(
    discovery.status().lastError ?? "",
    /^Received message larger than max \(\d+ vs 5000\)$/,
  );
  assert.equal(names.size, 0);
});

describe("a server that goes away", () => {
  test("and comes back is asked only for what is lacking", async () => {
    const first = await serve();
    const { discovery, names, endings, stop } = converse(transport(first.port));
    await discovery.synced;
    assert.equal(names.size, ADDRESSES);
    first.close();
    await until(() => endings.length > 1);
    assert.equal(endings[0], "Reconnect");
    assert(endings.slice(1).every((reason) => reason === "ConnectionError"));
    assert.match(discovery.status().lastError ?? "", /ECONNREFUSED/);
    assert.equal(names.size, ADDRESSES);
    const again = await serve({ listen: `127.0.0.1:${first.port}` });
    await until(() => discovery.status().connected);
    assert.deepEqual(again.lines, [
      "proxy of node1: connected",
      "proxy of node1: sent 0 addresses, removed 0",
    ]);
    stop();
  });

  test("because connections get old is called again at once", async () => {
    const { port, lines } = await serve({ connectionAge: { maxMs: 100, graceMs: 100 } });
    const { endings, names, stop } = converse(transport(port));
    await until(() => endings.length >= 2 && lines.at(-1)?.includes("sent") === true);
    stop();
    assert.deepEqual(new Set(endings), new Set(["Reconnect"]));
    assert.equal(names.size, ADDRESSES);
  });
});

describe("a server that is slow without end is given up:", () => {
  test("one that takes the stream and says nothing", async () => {
    const mute: GrpcService = {
      definition: { deltaAggregatedResources: deltaDiscoveryMethod },
      implementation: { deltaAggregatedResources: () => undefined },
    };
    const { port } = await start([mute]);
    const { discovery, endings, stop } = converse(transport(port), 100);
    await until(() => endings.length > 0);
    stop();
    const { connected, lastAnswerAt, lastError } = discovery.status();
    assert.deepEqual(
      [connected, lastAnswerAt, lastError],
      [false, undefined, "no answer within 100ms"],
    );
    assert.equal(endings[0], "ConnectionError");
  });

  test("one that takes the connection and never shakes hands", async () => {
    const port = await listen(createServer(() => undefined));
    const error = await failure(transport(port, {}, { connectMs: 150 }).open());
    assert.deepEqual([error.code, error.message], ["connection", "not connected within 150 ms"]);
  });

  test("one whose handshake comes drop by drop", async () => {
    const { port } = await serve();
    const dripping = await listen(relayTo(port, () => 20));
    const error = await failure(transport(dripping, {}, { connectMs: 300 }).open());
    assert.deepEqual([error.code, error.message], ["connection", "not connected within 300 ms"]);
  });

  test("one whose first answer comes drop by drop", async () => {
    const { port } = await serve();
    let sent = 0;
    // Through the handshake at once.
    const dripping = await listen(
      relayTo(port, (byteCount) => {
        sent += byteCount;
        return sent < 4000 ? Number.POSITIVE_INFINITY : 20;
      }),
    );
    const { discovery, endings, stop } = converse(transport(dripping), 500);
    await until(() => endings.length > 0);
    stop();
    assert.equal(discovery.status().lastError, "no answer within 500ms");
  });
});

async function listen(server: Server): Promise<number> {
  const sockets = new Set<Socket>();
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
  });
  cleanUps.push(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

/**
 * Passes on at once what the client says, and of what the server says so much each time.
 *
 * @param share of so many bytes that wait, how many go every 20 ms.
 */
function relayTo(port: number, share: (byteCount: number) => number): Server {
  return createServer((client) => {
    const server = connect(port, "127.0.0.1");
    server.on("error", () => undefined);
    client.pipe(server);
    let waiting = Buffer.alloc(0);
    let closed = false;
    client.once("close", () => {
      closed = true;
      server.destroy();
    });
    const drip = (): void => {
      if (closed) return;
      const count = Math.min(waiting.length, share(waiting.length));
      if (count > 0) client.write(waiting.subarray(0, count));
      waiting = waiting.subarray(count);
      systemClock.after(20, drip);
    };
    server.on("data", (chunk: Buffer) => {
      waiting = Buffer.concat([waiting, chunk]);
    });
    drip();
  });
}
