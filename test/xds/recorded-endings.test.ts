/**
 * How a real istiod ended streams, or did not, by a gRPC server on a real socket: what our client
 * makes of each, and that it comes back as soon as it may.
 */
import assert from "node:assert/strict";
import {
  createSecureServer,
  type Http2SecureServer,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import type { AddressInfo } from "node:net";
import { after, describe, test } from "node:test";
import { type ServerDuplexStream, status } from "@grpc/grpc-js";
import { EmbeddedAuthority } from "../../src/embedded/certificate-authority.ts";
import { ControlPlaneServer } from "../../src/embedded/control-plane-server.ts";
import { IstiodLine } from "../../src/istiod/istiod-line.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import {
  ADDRESS_TYPE,
  AUTHORIZATION_TYPE,
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponse,
  deltaDiscoveryMethod,
} from "../../src/wire/delta-discovery.ts";
import { DeltaClient } from "../../src/xds/delta-client.ts";
import { DiscoveryClient, type TerminationReason } from "../../src/xds/discovery-client.ts";
import { GrpcTransport } from "../../src/xds/grpc-transport.ts";
import { CapturedLog } from "../support/captured-log.ts";
import { recordedScenario, recordedText } from "../support/istiod-recording.ts";

type Call = ServerDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

interface RecordedEnding {
  readonly case: string;
  readonly what: string;
  readonly grpcStatus: string;
  readonly grpcMessage: string;
  readonly responses: readonly { readonly typeUrl: string; readonly resources: number }[];
}

const TYPES = [ADDRESS_TYPE, AUTHORIZATION_TYPE];
const cleanUps: (() => void)[] = [];
after(() => {
  for (const cleanUp of cleanUps) cleanUp();
});
const authority = await EmbeddedAuthority.inMemory(systemClock);

/** What a new stream is told: addresses, policies. */
const FIRST_ANSWERS = recordedScenario("62").messages.flatMap((message) =>
  message.from === "server" ? [message.response] : [],
);

/** So many of each. */
const ALL = FIRST_ANSWERS.map(({ resources }) => resources.length);

/** Answers everything, as a control plane does that is well. */
function answer(call: Call): void {
  call.on("data", ({ typeUrl, responseNonce }: DeltaDiscoveryRequest) => {
    const response = FIRST_ANSWERS.find((one) => one.typeUrl === typeUrl);
    if (responseNonce === "" && response !== undefined) call.write(response);
  });
}

/** @param first what becomes of the first stream; the others are answered. */
async function serve(first: (call: Call) => void) {
  let streams = 0;
  const server = await ControlPlaneServer.start(
    {
      authority,
      services: [
        {
          definition: { deltaAggregatedResources: deltaDiscoveryMethod },
          implementation: {
            deltaAggregatedResources: (call: Call) => (streams++ === 0 ? first : answer)(call),
          },
        },
      ],
    },
    { listen: "127.0.0.1:0", names: [] },
  );
  cleanUps.push(() => server.close());
  return { port: server.port, streams: () => streams };
}

function converse(port: number) {
  const held = [new Map<string, string>(), new Map<string, string>()];
  const sinks = held.map((names) => ({
    put: (name: string, version: string) => names.set(name, version),
    refused: () => undefined,
    remove: (name: string) => names.delete(name),
    commit: () => undefined,
    versionOf: (name: string) => names.get(name),
    versions: () => names,
    refusals: () => [],
  }));
  const log = new CapturedLog();
  const endings: TerminationReason[] = [];
  const line = new IstiodLine({
    address: `https://127.0.0.1:${port}`,
    roots: { kind: "pem", pem: authority.rootPem },
    alternateHostname: undefined,
    token: { kind: "literal", token: "a token" },
    clusterId: "Kubernetes",
    headers: [],
    tls: { tls12: false, postQuantumOnly: false },
  });
  const client = new DeltaClient(
    sinks.map((sink, i) => ({ url: TYPES[i] ?? "", onDemand: false, sink })),
    { node: { id: "id", metadata: {} }, offeredBytesMax: 1 },
  );
  const discovery = new DiscoveryClient(
    {
      transport: new GrpcTransport(
        { line, clock: systemClock },
        { connectMs: 30_000, receivedBytesMax: 64 * 1024 * 1024 },
      ),
      client,
      metrics: { received: () => undefined, terminated: (reason) => endings.push(reason) },
      connected: () => undefined,
      clock: systemClock,
      random: { unit: () => 0.5, hex: () => "" },
      log: log.root,
    },
    { address: "https://istiod", firstAnswerMs: 30_000, sliceMs: 5 },
  );
  const abort = new AbortController();
  cleanUps.push(() => abort.abort());
  void discovery.run(abort.signal);
  return {
    discovery,
    /** How many addresses and policies are known. */
    known: () => held.map(({ size }) => size),
    endings,
    warnings: () => log.lines.filter(({ level }) => level !== "info").map((one) => one.message),
    stop: () => abort.abort(),
  };
}

/** Looks every few milliseconds. */
async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) {
    await new Promise<void>((resolve) => systemClock.after(5, resolve, true));
  }
}

const recorded = JSON.parse(recordedText("xds-errors/cases.json")) as readonly RecordedEnding[];
const isRefusal = ({ grpcStatus }: RecordedEnding) => grpcStatus in status && grpcStatus !== "OK";

describe("a stream that istiod refused", () => {
  const refusals = [
    ...recorded.filter(isRefusal),
    {
      case: "ambient-off",
      what: "istiod with PILOT_ENABLE_AMBIENT=false",
      grpcStatus: "UNKNOWN",
      grpcMessage: "ztunnel requires PILOT_ENABLE_AMBIENT=true",
    },
  ];
  for (const { case: name, what, grpcStatus, grpcMessage } of refusals) {
    test(`is told in istiod's words and begun again: ${name}, ${what}`, async () => {
      const code = status[grpcStatus as keyof typeof status];
      const { port } = await serve((call) => call.emit("error", { code, details: grpcMessage }));
      const { discovery, endings, warnings, known, stop } = converse(port);
      await discovery.synced;
      stop();
      assert.deepEqual(endings, ["ConnectionError"]);
      assert.deepEqual(known(), ALL);
      const hint = grpcMessage.includes("authentication failure")
        ? " (hint: check the control plane logs for more information)"
        : "";
      assert.deepEqual(warnings(), [
        `XDS client connection error: gRPC connection error connecting to https://istiod: status: ${statusName(code)}, message: ${JSON.stringify(grpcMessage)}${hint}, retrying in 20ms`,
      ]);
    });
  }
});

describe("a stream that istiod let live", () => {
  const living = recorded.filter(({ grpcStatus }) => !(grpcStatus in status));
  for (const { case: name, what, responses } of living) {
    test(`lives on with what it was told: ${name}, ${what}`, async () => {
      const nonces: string[] = [];
      const { port, streams } = await serve((call) => {
        call.on("data", ({ responseNonce, errorDetail }: DeltaDiscoveryRequest) => {
          if (responseNonce !== "")
            nonces.push(`${responseNonce} ${errorDetail?.message ?? "ACK"}`);
        });
        for (const { typeUrl, resources } of responses) {
          const all = FIRST_ANSWERS[0]?.resources.slice(0, resources) ?? [];
          assert.equal(all.length, resources);
          call.write({
            ...{ systemVersionInfo: "", removedResources: [], nonce: "recorded" },
            ...{ typeUrl, resources: all },
          });
        }
        answer(call);
      });
      const { discovery, endings, known, stop } = converse(port);
      await discovery.synced;
      const expected = [...responses.map(() => "recorded"), ...FIRST_ANSWERS.map((r) => r.nonce)];
      await until(() => nonces.length === expected.length);
      assert.deepEqual(
        nonces,
        expected.map((nonce) => `${nonce} ACK`),
      );
      assert.deepEqual([endings, streams(), known()], [[], 1, ALL]);
      assert.equal(discovery.status().connected, true);
      stop();
    });
  }
});

test("a stream that istiod ended in peace (half-close) is begun again at once", async () => {
  const half = recorded.filter(({ grpcStatus }) => grpcStatus === "OK");
  assert.deepEqual(
    half.map((one) => one.case),
    ["half-close"],
  );
  const { port, streams } = await serve((call) => {
    const [first] = FIRST_ANSWERS;
    if (first !== undefined) call.write(first);
    call.end();
  });
  const { discovery, endings, warnings, stop } = converse(port);
  await discovery.synced;
  stop();
  assert.deepEqual([endings, streams()], [["Complete"], 2]);
  assert.deepEqual(warnings(), ["XDS client complete"]);
});

describe("a connection that istiod ended (connection.json)", () => {
  /** GOAWAYs as recorded: error code, last stream, words. Then the connection is cut, no trailers. */
  const cases: Readonly<Record<string, readonly (readonly [number, number, string])[]>> = {
    "max-connection-age-wire": [
      [0, 2 ** 31 - 1, "max_age"],
      [0, 1, "max_age"],
    ],
    "istiod-stopped": [[0, 1, "graceful_stop"]],
  };
  const inRecording = (
    JSON.parse(recordedText("xds-errors/connection.json")) as RecordedEnding[]
  ).map((one) => one.case);
  for (const [name, goaways] of Object.entries(cases)) {
    test(`is made again at once, and nothing is forgotten: ${name}`, async (t) => {
      assert.ok(inRecording.includes(name));
      const { server, port, sessions } = await bareServer();
      t.after(() => server.close());
      const { discovery, endings, known, stop } = converse(port);
      t.after(stop);
      await discovery.synced;
      const [session] = sessions;
      assert.ok(session !== undefined);
      for (const [code, last, words] of goaways) session.goaway(code, last, Buffer.from(words));
      await new Promise<void>((resolve) => session.ping(() => resolve()));
      assert.deepEqual(known(), ALL);
      session.destroy();
      await until(() => sessions.length === 2 && discovery.status().connected);
      assert.deepEqual([endings, known()], [["Reconnect"], ALL]);
    });
  }
});

/** HTTP/2 without a library of gRPC, so that its end is ours to make. */
async function bareServer() {
  const { certificatePem, privateKeyPem } = await authority.issueServer([
    { kind: "ip", bytes: Uint8Array.of(127, 0, 0, 1) },
  ]);
  const server: Http2SecureServer = createSecureServer({
    cert: certificatePem,
    key: privateKeyPem,
  });
  const sessions: ServerHttp2Session[] = [];
  server.on("session", (session) => {
    sessions.push(session);
    session.on("error", () => undefined);
  });
  server.on("stream", (stream: ServerHttp2Stream) => {
    stream.on("error", () => undefined);
    stream.respond({ ":status": 200, "content-type": "application/grpc" });
    for (const response of FIRST_ANSWERS) {
      const message = deltaDiscoveryMethod.responseSerialize(response);
      const head = Buffer.alloc(5);
      head.writeUInt32BE(message.length, 1);
      stream.write(Buffer.concat([head, message]));
    }
  });
  cleanUps.push(() => {
    server.close();
    for (const session of sessions) session.destroy();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { server, sessions, port: (server.address() as AddressInfo).port };
}

/** `INVALID_ARGUMENT` → `InvalidArgument`. */
function statusName(code: number): string {
  const words = (status[code] ?? "").toLowerCase().split("_");
  return words.map((word) => word.charAt(0).toUpperCase() + word.slice(1)).join("");
}
