/**
 * The HTTP/2 conversations that were recorded from the original, played by a hand-written peer
 * against our daemon: as a client of 15008, as the server that our outbound dials, and while the
 * daemon or a pod drains. Frames, headers, resets, endings and log lines are compared.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import type { Socket } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { connect as connectTls, TLSSocket } from "node:tls";
import type { AlternativeName } from "../../src/embedded/certificate-builder.ts";
import { parsePlainLine } from "../support/access-line.ts";
import { FramePeer, type PlayOptions, type RecordedFrame } from "../support/frame-conversation.ts";
import { encodeFrame, FrameReader } from "../support/http2-frames.ts";
import {
  type ClientStory,
  connectFrom,
  type LabServer,
  listenDoubling,
  listenOn,
  tellStory,
} from "../support/lab-application.ts";
import { type LabCertificate, labCertificate, workloadName } from "../support/lab-certificate.ts";
import type { LabNode } from "../support/lab-node.ts";
import { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { waitUntil } from "../support/wait-until.ts";

const RECORDED = join(import.meta.dirname, "../fixtures/ztunnel");

interface Conversation {
  readonly what: string;
  /** Version, cipher suite, protocol. */
  readonly tls: readonly string[];
  readonly frames: readonly RecordedFrame[];
  readonly "closed by proxy": { readonly end: string } | null;
  readonly "proxy log": string;
  readonly "client certificate SAN"?: readonly (readonly [kind: string, value: string])[];
  readonly clients?: readonly Pick<ClientStory, "end" | "received">[];
}

interface FirstFlight {
  readonly what: string;
  /** TLS record of the hello. */
  readonly hex: string;
  readonly "proxy log": string;
}

const calls = recordedFile("call") as readonly Conversation[];
const drains = recordedFile("drain") as readonly Conversation[];
const [firstFlight, ...serves] = recordedFile("serve") as [FirstFlight, ...Conversation[]];

/**
 * Where we differ. Consecutive `recorded` lines of the frames (or words of a log line) become
 * `ours` before comparing. Everything else must be equal.
 */
const DIFFERENCES: readonly {
  readonly where: RegExp;
  readonly recorded: readonly string[];
  readonly ours: readonly string[];
  readonly why: string;
}[] = [
  {
    where: /^(call|drain): .*(CONNECT|long|baggage|network|END_STREAM|by us|SIGTERM|deleted)/,
    recorded: ['dst.workload="server1"'],
    ours: ['dst.service="echo.default.svc.cluster.local"', 'dst.workload="server1"'],
    why: "the original forgets a workload's own services when the mesh comes from a file",
  },
  {
    where: /^call: reset by us/,
    recorded: ["error", "access"],
    ours: ["info", "access"],
    why: "a peer that cancels does not miss what the application had to say",
  },
  {
    where: /^call: reset by us/,
    recorded: ['error="while closing connection: receive: io error: broken pipe"'],
    ours: [],
    why: "the same",
  },
  {
    where: /^call: (other trust domain|DNS name only|URI that is not)/,
    recorded: ["closed ERR_SSL_SSLV3_ALERT_CERTIFICATE_UNKNOWN"],
    ours: ["closed ERR_SSL_SSL/TLS_ALERT_CERTIFICATE_UNKNOWN"],
    why: "the same alert; the peer that recorded it had an older OpenSSL with another name for it",
  },
  {
    where: /^call: application resets/,
    recorded: ["s1 DATA END_STREAM"],
    ours: ["s1 RST_STREAM CONNECT_ERROR"],
    why: "an application's reset stays one",
  },
  {
    where: /^call: application resets/,
    recorded: ["s1 RST_STREAM CONNECT_ERROR", "s1 RST_STREAM NO_ERROR"],
    ours: ["s1 RST_STREAM CONNECT_ERROR"],
    why: "the same: there is nothing left to reset",
  },
  {
    where: /^call: URI that is not/,
    recorded: [
      "warn",
      "tls::certificate:proxy{wl=default/server1}",
      "SAN URI(spiffe://cluster.local/x) could not be parsed: invalid spiffe identity: spiffe://cluster.local/x",
    ],
    ours: [],
    why: "the access line tells it already",
  },
  {
    where: /^serve: RST_STREAM INTERNAL_ERROR after 200/,
    recorded: ["client EOF hello worldhello world"],
    ours: ["client ECONNRESET hello worldhello world"],
    why: "a stream that breaks is no end in order",
  },
  {
    where: /^serve: connection closed after 200/,
    recorded: ["client EOF"],
    ours: ["client ECONNRESET"],
    why: "the same",
  },
  {
    where: /^serve: connection closed after 200/,
    recorded: ["info", "access"],
    ours: ["error", "access"],
    why: "a connection that was cut short says so",
  },
  {
    where: /^serve: connection closed after 200/,
    recorded: ["duration="],
    ours: [
      "duration=",
      'error="receive: io error: peer closed connection without sending TLS close_notify: https://docs.rs/rustls/latest/rustls/manual/_03_howto/index.html#unexpected-eof"',
    ],
    why: "the same",
  },
  {
    where: /^drain: pod deleted/,
    recorded: ["conn GOAWAY 2147483647 NO_ERROR", "conn PING", "closed EOF"],
    ours: [
      "s1 RST_STREAM CANCEL",
      "conn GOAWAY 2147483647 NO_ERROR",
      "conn PING",
      "conn GOAWAY 1 NO_ERROR",
      "closed EOF",
    ],
    why: "streams that are stopped are reset before their tunnel goes",
  },
  {
    where: /^drain: pod deleted/,
    recorded: [
      'error="while closing connection: receive: io error: stream closed because of a broken pipe"',
    ],
    ours: ['error="connection closed due to connection drain"'],
    why: "the cause instead of what came of it",
  },
  {
    where: /^drain: SIGTERM to the proxy: old stream goes on/,
    recorded: ["s1 DATA END_STREAM"],
    ours: ["s3 RST_STREAM REFUSED_STREAM", "s1 DATA END_STREAM"],
    why: "a stream that is opened all the same is told so, instead of waiting until the end",
  },
  {
    where: /^drain: SIGTERM, the stream stays/,
    recorded: ["closed EOF"],
    ours: ["s1 RST_STREAM CANCEL", "closed EOF"],
    why: "the same",
  },
  {
    where: /^serve: /,
    recorded: [
      "error",
      "proxy::h2::client:proxy{wl=default/client1}:outbound{id=}",
      'Error in HBONE connection handshake: Error { kind: Io(Custom { kind: UnexpectedEof, error: "peer closed connection without sending TLS close_notify: https://docs.rs/rustls/latest/rustls/manual/_03_howto/index.html#unexpected-eof" }) }',
    ],
    ours: [],
    why: "the original calls it an error of a handshake when an established tunnel's peer leaves",
  },
];

/**
 * Requests that break the rules of HTTP/2 leave no line in the original. Whose peer is reset again
 * and again looks for one, so here each is refused aloud like any other, bounded by the limit on
 * such frames.
 */
const MALFORMED: Readonly<Record<string, string>> = {
  "empty authority": "empty :authority",
  "CONNECT with :scheme and :path": "CONNECT with :scheme",
  "extended CONNECT": "CONNECT with :protocol",
  "long header list (70 kB)": "header list above 65536 bytes",
};

/** Extensions of a ClientHello that OpenSSL sends and rustls does not, or the other way round. */
const HELLO_EXTENSIONS_OF_LIBRARIES: ReadonlySet<number> = new Set([
  // status_request: asks for a stapled OCSP answer, which nobody in the mesh has.
  5,
  // ec_point_formats and encrypt_then_mac: of TLS 1.2, without meaning here.
  11, 22,
  // signature_algorithms: OpenSSL 3.5 also knows ML-DSA and Brainpool.
  13,
]);

/** Indices of the differences that were met. */
const met = new Set<number>();

test("header blocks are read as they were recorded", () => {
  for (const { frames } of [...calls, ...serves, ...drains]) {
    const reader = new FrameReader("server");
    for (const frame of frames) {
      if (frame.from !== "proxy" || frame.type !== "HEADERS") continue;
      const { headers, ...bytes } = frame;
      assert.deepEqual(reader.read(encodeFrame(bytes))[0]?.headers, headers);
    }
  }
});

describe("recorded frames", { skip: requireNetns("iptables", "ss"), timeout: 170_000 }, () => {
  let lab: MeshLab;
  let dialled: DialledServer;
  const servers: LabServer[] = [];
  /** Take as long as two pings, beside everything else. */
  let idlePlays: readonly Promise<Played>[] = [];

  before(async () => {
    lab = await startLab();
    for (const name of ["server1", "server2", "client2"]) {
      servers.push(listenDoubling(lab.host(name), 8080));
    }
    dialled = new DialledServer(lab, await labCertificate(lab, workloadName("stale")));
    servers.push(dialled.server);
    const idleCall = calls.find(isIdle) as Conversation;
    const idleServe = onBehalfOfClient2(serves.find(isIdle) as Conversation);
    const patience = { patienceMs: 60_000 };
    idlePlays = [playCall(lab, idleCall, patience), dialled.play("client2", idleServe, patience)];
    await waitUntil(() => lab.node("node-a").lines.some((l) => l.includes("client2")), "no echo");
  });

  after(async () => {
    for (const server of servers) server.close();
    await lab?.close();
  });

  for (const call of calls.filter((one) => !isIdle(one))) {
    test(`call: ${call.what}`, async () => {
      const node = lab.node("node-b");
      const lineCount = node.lines.length;
      const application = specialApplication(call, lab);
      try {
        const played = await playCall(lab, call);
        compare(call, played);
        const malformed = MALFORMED[call.what];
        const log = malformed === undefined ? call["proxy log"] : malformedLine(malformed);
        await compareLog(`call: ${call.what}`, node, lineCount, log);
      } finally {
        application?.close();
      }
    });
  }

  test(`serve: ${firstFlight.what}`, async () => {
    const node = lab.node("node-a");
    const lineCount = node.lines.length;
    const accepted = dialled.accepted();
    const story = tellStory(lab.host("client1"), "10.77.0.34", 8080);
    const socket = await accepted;
    const [hello] = (await once(socket, "data")) as [Buffer];
    socket.destroy();
    await story;
    assert.deepEqual(parseHello(hello), parseHello(Buffer.from(firstFlight.hex, "hex")));
    await compareLog(`serve: ${firstFlight.what}`, node, lineCount, firstFlight["proxy log"]);
  });

  for (const serve of serves.filter((one) => !isIdle(one))) {
    test(`serve: ${serve.what}`, async () => {
      const node = lab.node("node-a");
      const lineCount = node.lines.length;
      const played = await dialled.play("client1", serve);
      compare(serve, played);
      await compareLog(`serve: ${serve.what}`, node, lineCount, serve["proxy log"]);
    });
  }

  test("an idle tunnel is asked every ten seconds whether it lives, by both of its ends", async () => {
    const [call, serve] = await Promise.all(idlePlays);
    compare(calls.find(isIdle) as Conversation, call as Played);
    compare(onBehalfOfClient2(serves.find(isIdle) as Conversation), serve as Played);
  });
});

describe("recorded frames of a drain", { skip: requireNetns("iptables", "ss") }, () => {
  const [goesOn, stays, deleted] = drains as readonly [Conversation, Conversation, Conversation];
  let lab: MeshLab;
  const servers: LabServer[] = [];

  before(async () => {
    lab = await startLab({
      // Like the original, which ends everything at once.
      "node-b": { POD_TERMINATION_DEADLINE: "0" },
      // Longer than any conversation.
      "node-a": { POD_TERMINATION_DEADLINE: "10m" },
    });
    for (const name of ["server1", "server2", "client1", "client2"]) {
      servers.push(listenDoubling(lab.host(name), 8080));
    }
  });

  after(async () => {
    for (const server of servers) server.close();
    await lab?.close();
  });

  test(`drain: ${deleted.what}`, async () => {
    const node = lab.node("node-b");
    await playDrain(lab, node, deleted, () => void node.agent.del("node-b-0"));
  });

  test("a deleted pod that drains says what a daemon does, and serves as long", async () => {
    const node = lab.node("node-a");
    const drain = insteadOfServer1(goesOn, "client1", "10.77.0.11");
    const played = await playCall(
      lab,
      drain,
      { beforeGoaway: () => void node.agent.del("node-a-0"), patienceMs: 30_000 },
      "drain",
    );
    compare(drain, played);
    const complete = (): string | undefined =>
      node.lines.find((line) => line.includes("\taccess\tconnection complete"));
    await waitUntil(() => complete() !== undefined, "no access line");
    const { level, fields } = parsePlainLine(complete() ?? "");
    assert.equal(level, "info");
    const error = fields.find(([name]) => name === "error");
    assert.equal(error, undefined);
  });

  test(`drain: ${goesOn.what}; ${stays.what}`, async () => {
    const [a, b] = [lab.node("node-a"), lab.node("node-b")];
    await Promise.all([
      playDrain(lab, b, insteadOfServer1(goesOn, "server2", "10.77.0.22"), () =>
        b.process.kill("SIGTERM"),
      ),
      playDrain(lab, a, insteadOfServer1(stays, "client2", "10.77.0.12"), () =>
        a.process.kill("SIGTERM"),
      ),
    ]);
  });
});

test("every difference that is listed was met", { skip: requireNetns("iptables", "ss") }, () => {
  const missing = DIFFERENCES.filter((_, index) => !met.has(index));
  assert.deepEqual(missing, []);
});

/** What came of a conversation. */
interface Played {
  readonly title: string;
  readonly tls: readonly unknown[];
  readonly actual: readonly string[];
  readonly expected: readonly string[];
  readonly clientNames?: string;
  readonly stories?: readonly Pick<ClientStory, "end" | "received">[];
}

function recordedFile(name: string): unknown {
  return JSON.parse(readFileSync(join(RECORDED, `wire/${name}.json`), "utf8"));
}

function isIdle({ what }: { readonly what: string }): boolean {
  return what.includes("idle");
}

/** Another source, so that its tunnel is another one. */
function onBehalfOfClient2(serve: Conversation): Conversation {
  const text = JSON.stringify(serve).replaceAll("client1", "client2");
  return JSON.parse(text.replaceAll("10.77.0.11", "10.77.0.12")) as Conversation;
}

async function playCall(
  lab: MeshLab,
  call: Conversation,
  options: Partial<PlayOptions> = {},
  kind = "call",
): Promise<Played> {
  const log = call["proxy log"];
  const [, destination = "10.77.0.21"] = /dst\.addr=([\d.]+):15008/.exec(log) ?? [];
  const socket = await connectFrom(lab.host("outside"), destination, 15008);
  const secured = connectTls({
    socket,
    ...(await certificateOf(lab, call)),
    ALPNProtocols: ["h2"],
    checkServerIdentity: () => undefined,
  });
  const peer = new FramePeer(secured, "client");
  await once(secured, "secureConnect");
  const tls = [secured.getProtocol(), secured.getCipher().name, secured.alpnProtocol];
  try {
    return {
      title: `${kind}: ${call.what}`,
      tls,
      ...(await peer.play(call.frames, playOptions(kind, call, options))),
    };
  } finally {
    peer.leave();
  }
}

const BAD_NAMES: Readonly<Record<string, AlternativeName>> = {
  "other trust domain": { kind: "uri", uri: "spiffe://other.example/ns/default/sa/client1" },
  "DNS name only": { kind: "dns", hostname: "client1.default.svc" },
  "URI that is not a workload identity": { kind: "uri", uri: "spiffe://cluster.local/x" },
};

function insteadOfServer1(drain: Conversation, name: string, ip: string): Conversation {
  const addressHex = (text: string): string => Buffer.from(text).toString("hex");
  const text = JSON.stringify(drain)
    .replaceAll(name, "another")
    .replaceAll("server1", name)
    .replaceAll("10.77.0.21", ip)
    .replaceAll(addressHex("10.77.0.21"), addressHex(ip));
  return JSON.parse(text) as Conversation;
}

async function playDrain(
  lab: MeshLab,
  node: LabNode,
  drain: Conversation,
  beforeGoaway: () => void,
): Promise<void> {
  const lineCount = node.lines.length;
  const played = await playCall(lab, drain, { beforeGoaway, patienceMs: 30_000 }, "drain");
  compare(drain, played);
  const [, pod = ""] = /dst\.workload="(\w+)"/.exec(drain["proxy log"]) ?? [];
  const isAboutIt = (line: string): boolean =>
    (/\t(signal|inpod|access)/.test(line) && !line.includes("pod received")) ||
    line.includes(`\tdrain:proxy{wl=default/${pod}}`);
  await compareLog(played.title, node, lineCount, drain["proxy log"], isAboutIt);
}

async function certificateOf(lab: MeshLab, call: Conversation): Promise<Partial<LabCertificate>> {
  const [, account = "client1"] = /src\.identity="[^"]*\/(\w+)"/.exec(call["proxy log"]) ?? [];
  const certificate = await labCertificate(lab, BAD_NAMES[call.what] ?? workloadName(account));
  return call.what === "no certificate" ? { ca: certificate.ca } : certificate;
}

/** The applications on 8090: both say `bye`; 300 ms later one resets, the other closes its half. */
function specialApplication(call: Conversation, lab: MeshLab): LabServer | undefined {
  const isGone = call.what === "application resets";
  if (!isGone && call.what !== "application closes first") return undefined;
  return listenOn(lab.host("server1"), 8090, (socket) => {
    socket.write("bye");
    socket.resume();
    setTimeout(() => (isGone ? socket.resetAndDestroy() : socket.end()), 300);
  });
}

/** The server at 10.77.0.34:15008 that node-a dials. */
class DialledServer {
  readonly server: LabServer;
  readonly #lab: MeshLab;
  readonly #certificate: LabCertificate;
  #next = Promise.withResolvers<Socket>();

  constructor(lab: MeshLab, certificate: LabCertificate) {
    this.#lab = lab;
    this.#certificate = certificate;
    this.server = listenOn(lab.host("stale"), 15008, (socket) => this.#next.resolve(socket));
  }

  /** The next connection. */
  accepted(): Promise<Socket> {
    this.#next = Promise.withResolvers();
    return this.#next.promise;
  }

  async play(
    client: string,
    serve: Conversation,
    options: Partial<PlayOptions> = {},
  ): Promise<Played> {
    const accepted = this.accepted();
    const stories = (serve.clients ?? []).map(() =>
      tellStory(this.#lab.host(client), "10.77.0.34", 8080),
    );
    const secured = new TLSSocket(await accepted, {
      isServer: true,
      ...this.#certificate,
      requestCert: true,
      ALPNProtocols: ["h2"],
    });
    const peer = new FramePeer(secured, "server");
    await once(secured, "secure");
    const tls = [secured.getProtocol(), secured.getCipher().name, secured.alpnProtocol];
    const clientNames = secured.getPeerCertificate().subjectaltname ?? "";
    try {
      const played = await peer.play(serve.frames, playOptions("serve", serve, options));
      peer.leave();
      return {
        title: `serve: ${serve.what}`,
        tls,
        clientNames,
        ...played,
        stories: await Promise.all(stories),
      };
    } finally {
      peer.leave();
      const pod = this.#lab.host(client);
      const sockets = (): string =>
        this.#lab.net.exec(pod, "ss", "-Htn", "state", "connected", "dport", "=", ":15008");
      await waitUntil(() => !/^(ESTAB|CLOSE-WAIT)/m.test(sockets()), "the tunnel stays");
    }
  }
}

function playOptions(
  kind: string,
  conversation: Conversation,
  options: Partial<PlayOptions>,
): PlayOptions {
  const title = `${kind}: ${conversation.what}`;
  const end = conversation["closed by proxy"]?.end;
  const [, alert] = /\[SSL: (\w+)\]/.exec(end ?? "") ?? [];
  return {
    expectation: (lines) => withDifferences(title, lines),
    // Where the recorded peer left first, what the proxy does after that is nobody's to see.
    end: title.startsWith("serve: connection closed")
      ? undefined
      : ((alert && `ERR_SSL_${alert}`) ?? end),
    ...options,
  };
}

function compare(recorded: Conversation, played: Played): void {
  assert.deepEqual(played.tls, recorded.tls, "TLS");
  assert.deepEqual(played.actual, played.expected, "frames");
  if (recorded.clients === undefined) return;
  const names = recorded["client certificate SAN"]?.map(([kind, value]) => `${kind}:${value}`);
  assert.equal(played.clientNames, names?.join(", "), "names of the certificate shown");
  assert.deepEqual(
    (played.stories ?? []).map(storyLine),
    recorded.clients.flatMap((story) => withDifferences(played.title, [storyLine(story)])),
    "what the clients saw",
  );
}

function storyLine({ end, received }: Pick<ClientStory, "end" | "received">): string {
  return `client ${end} ${received}`.trimEnd();
}

async function compareLog(
  title: string,
  node: LabNode,
  lineCount: number,
  recorded: string,
  isCompared: (line: string) => boolean = (line) => line !== "",
): Promise<void> {
  const expected = logLines(recorded.split("\n").filter(isCompared))
    .map((words) => withDifferences(title, words))
    .filter((words) => words.length > 0);
  const actual = (): string[][] => logLines(node.lines.slice(lineCount).filter(isCompared));
  await waitUntil(() => actual().length >= expected.length, "lines are missing").catch(() => {
    // The comparison tells which.
  });
  assert.deepEqual(actual(), expected, "log");
}

function malformedLine(reason: string): string {
  const fields = `src.addr=10.77.0.31:1 dst.addr=10.77.0.21:15008 direction="inbound"`;
  const time = "2026-11-23T02:03:36.025339Z";
  return `${time}\twarn\taccess\tconnection failed\t${fields} error="malformed request: ${reason}"`;
}

/** Sorted lines of words. */
function logLines(lines: readonly string[]): string[][] {
  return lines
    .map((line) => {
      const { level, scope, message, fields } = parsePlainLine(line);
      const steady = fields.map(([name, value]) => `${name}=${steadyValue(name, value)}`);
      return [level, scope.replace(/id=\w+/, "id="), message, ...steady];
    })
    .sort((a, b) => (a.join() < b.join() ? -1 : 1));
}

function steadyValue(name: string, value: string): string {
  if (name === "duration" || name === "uid") return "";
  return name === "src.addr" ? value.replace(/:\d+$/, "") : value;
}

function withDifferences(title: string, recorded: readonly string[]): readonly string[] {
  let lines = recorded;
  for (const [index, { where, recorded: theirs, ours }] of DIFFERENCES.entries()) {
    if (!where.test(title)) continue;
    const at = lines.findIndex((_, i) => theirs.every((line, j) => lines[i + j] === line));
    if (at < 0) continue;
    lines = lines.toSpliced(at, theirs.length, ...ours);
    met.add(index);
  }
  return lines;
}

/** The key itself is random. */
const KEY_SHARE = 51;

/** What a ClientHello offers, by the numbers of TLS. */
function parseHello(record: Buffer): unknown {
  const RECORD_HEADER_BYTES = 5;
  const body = record.subarray(RECORD_HEADER_BYTES);
  let at = 4 + 2 + 32;
  const take = (lengthBytes: number): Buffer => {
    const length = body.readUIntBE(at, lengthBytes);
    at += lengthBytes + length;
    return body.subarray(at - length, at);
  };
  take(1);
  const suites = take(2).toString("hex");
  const compression = take(1).toString("hex");
  const extensions: Record<string, string> = {};
  const end = at + 2 + body.readUInt16BE(at);
  at += 2;
  while (at < end) {
    const type = body.readUInt16BE(at);
    at += 2;
    const value = take(2).toString("hex");
    if (HELLO_EXTENSIONS_OF_LIBRARIES.has(type)) continue;
    extensions[type] = type === KEY_SHARE ? value.slice(0, 12) : value;
  }
  return { suites, compression, extensions };
}

/** @param environmentOf one node, beside what both have. */
function startLab(
  environmentOf: Readonly<Record<string, Readonly<Record<string, string>>>> = {},
): Promise<MeshLab> {
  const environment = (node: string): Record<string, string> => ({
    LOG_FORMAT: "plain",
    ZTUNNEL_WORKER_THREADS: "1",
    ...environmentOf[node],
  });
  const meshB = readFileSync(join(RECORDED, "local-b.yaml"), "utf8");
  return MeshLab.start({
    nodes: {
      "node-a": {
        ip: "10.77.0.2",
        mesh: readFileSync(join(RECORDED, "local-a.yaml"), "utf8"),
        environment: environment("node-a"),
        pods: [
          { name: "client1", ip: "10.77.0.11" },
          { name: "client2", ip: "10.77.0.12" },
        ],
      },
      "node-b": {
        ip: "10.77.0.3",
        mesh: meshB,
        environment: environment("node-b"),
        pods: [
          { name: "server1", ip: "10.77.0.21" },
          { name: "server2", ip: "10.77.0.22" },
        ],
      },
    },
    outsiders: { outside: "10.77.0.31", stale: "10.77.0.34" },
    mesh: meshB,
    controlIp: "10.77.0.4",
    prefixLength: 24,
    gatewayIp: "10.77.0.1",
  });
}
