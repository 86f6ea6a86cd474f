/**
 * HBONE where it is rarely: peers with odd limits, peers that vanish, refuse, change hands or never
 * tire; real daemons against each other and against Node's HTTP/2 on the other side.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { createSecureServer, type Http2SecureServer, type ServerHttp2Session } from "node:http2";
import type { Socket } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { ConnectClient } from "../support/connect-client.ts";
import { FramePeer } from "../support/frame-conversation.ts";
import { FLAG } from "../support/http2-frames.ts";
import { connectFrom, type LabServer, listenEcho, listenOn } from "../support/lab-application.ts";
import { labCertificate, workloadName } from "../support/lab-certificate.ts";
import type { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import {
  ADDRESS,
  APP_PORT,
  PATHS,
  PairMaker,
  pingPong,
  readingEnd,
  startTwoNodes,
  TWO_NODES_MESH,
  talk,
} from "../support/two-nodes.ts";
import { waitUntil } from "../support/wait-until.ts";

/** Node's HTTP/2 as a workload of the mesh, and one where nobody listens. */
const ODD = "10.66.0.41";
const DEAD = "10.66.0.42";
const PORT = 7000;

const timeout = 150_000;

const CONNECTS = 10_000;
const CONNECTS_AT_ONCE = 100;
const STREAMS_MAX = 200;
const BROKEN_STREAMS = 20;
const STORM_CALLS = 400;
/** As POOL_DIAL_BACKOFF_MAX has it. */
const DIALS_PER_SECOND_MAX = 10;
/** Of the doubling from 10 ms. */
const FIRST_DIALS = 5;
/** A certificate of node-b lives that long, and is renewed at half of it. */
const SECRET_TTL_S = 6;

const MESH = withWorkloads(TWO_NODES_MESH, { odd: ODD, dead: DEAD });

describe("HBONE at its edges", { skip: requireNetns("iptables", "ss") }, () => {
  let lab: MeshLab;
  let echo: LabServer;
  let odd: OddServer;

  before(async () => {
    lab = await startTwoNodes({
      environmentOf: {
        "node-a": {
          HBONE_PING_INTERVAL: "1s",
          HBONE_PING_TIMEOUT: "2s",
          POOL_UNUSED_RELEASE_TIMEOUT: "2s",
        },
        "node-b": {
          HBONE_PING_INTERVAL: "1s",
          HBONE_PING_TIMEOUT: "2s",
          SECRET_TTL: `${SECRET_TTL_S}s`,
        },
      },
    });
    lab.addHost("odd", ODD);
    lab.addHost("dead", DEAD);
    lab.changeMesh(MESH);
    echo = listenEcho(lab.host("server"), APP_PORT);
    odd = await OddServer.listen(lab);
    await waitUntil(async () => {
      const dump = JSON.parse(await lab.node("node-a").get(15000, "/config_dump"));
      return JSON.stringify(dump.workloads).includes(DEAD);
    }, "the mesh never changed");
  });
  after(async () => {
    echo?.close();
    odd?.close();
    await lab?.close();
  });

  describe("a server of few streams, small windows and small frames", () => {
    test("gets as many streams on a tunnel as it takes, and all connections are served", {
      timeout,
    }, async () => {
      odd.settings = { maxConcurrentStreams: 3, initialWindowSize: 1000, maxFrameSize: 16_384 };
      const first = await connectFrom(lab.host("client"), ODD, PORT);
      await pingPong(first);
      const others = await Promise.all(
        Array.from({ length: 9 }, async () => {
          const socket = await connectFrom(lab.host("client"), ODD, PORT);
          await pingPong(socket);
          return socket;
        }),
      );
      assert.ok(odd.streamsAtOnceMax <= 3, `${odd.streamsAtOnceMax} streams at once`);
      for (const socket of [first, ...others]) socket.destroy();
    });

    test("carries bulk all the same", { timeout }, async () => {
      const said = randomBytes(300_000);
      const socket = await connectFrom(lab.host("client"), ODD, PORT);
      socket.end(said);
      const heard = Buffer.concat(await socket.toArray());
      assert.equal(heard.equals(said), true);
    });
  });

  test("GOAWAY of a server: its streams go on, new ones go to another tunnel", {
    timeout,
  }, async () => {
    odd.settings = {};
    const running = await connectFrom(lab.host("client"), ODD, PORT);
    await pingPong(running);
    const former = odd.newestSession;
    former.goaway(0);
    await pingPong(running);
    const later = await connectFrom(lab.host("client"), ODD, PORT);
    await pingPong(later);
    assert.notEqual(odd.newestSession, former);
    // Those of the tests before may still be on their way out.
    await waitUntil(() => tunnelsTo(lab, ODD).length === 2, "not the two tunnels");
    await pingPong(running);
    running.destroy();
    await waitUntil(() => tunnelsTo(lab, ODD).length === 1, "the tunnel stays");
    later.destroy();
  });

  test("a tunnel that breaks is one warning and a line for each connection; an idle one is neither", {
    timeout,
  }, async () => {
    odd.settings = {};
    const connect = async (): Promise<Socket> => {
      const socket = await connectFrom(lab.host("client"), ODD, PORT);
      await pingPong(socket);
      return socket;
    };
    const lines = (pattern: RegExp): readonly string[] =>
      lab.node("node-a").lines.filter((line) => pattern.test(line));
    (await connect()).destroy();
    await waitUntil(() => odd.streamCount === 0, "the stream stays");
    odd.breakOff();
    await waitUntil(() => tunnelsTo(lab, ODD).length === 0, "the idle tunnel stays");
    const sockets = await Promise.all(Array.from({ length: BROKEN_STREAMS }, connect));
    odd.breakOff();
    assert.deepEqual(new Set(await Promise.all(sockets.map(readingEnd))), new Set(["ECONNRESET"]));
    const warnings = (): readonly string[] =>
      lines(/"level":"warn".*"scope":"ztunnel::proxy::h2::client"/);
    await waitUntil(() => warnings().length > 0, "no line for the peer");
    const expected = new RegExp(`"peer":"${ODD}:15008","connections":${BROKEN_STREAMS}`);
    assert.match(warnings().join("\n"), expected);
    const failed = (): readonly string[] =>
      lines(/"error":"receive: io error: (peer closed|Connection reset).*/).filter((line) =>
        line.includes(`"dst.addr":"${ODD}:15008"`),
      );
    await waitUntil(() => failed().length === BROKEN_STREAMS, "not each connection has its line");
    assert.equal(warnings().length, 1);
  });

  // They mostly wait.
  describe("side by side", { concurrency: true }, () => {
    test("a tunnel that nobody used for a while takes its leave", { timeout }, async () => {
      const socket = await connectFrom(lab.host("client"), ODD, PORT);
      await pingPong(socket);
      const session = odd.newestSession;
      const goaway = once(session, "goaway") as Promise<[number]>;
      socket.destroy();
      const [code] = await goaway;
      assert.equal(code, 0);
      if (!session.closed) await once(session, "close");
    });

    test("many calls to a workload that refuses are few dials", { timeout }, async () => {
      const dead = lab.host("dead");
      lab.net.exec(dead, "iptables", "-I", "INPUT", "-p", "tcp", "--dport", "15008", "--syn");
      const startedAt = performance.now();
      const ends = await Promise.all(
        Array.from({ length: STORM_CALLS }, async (_, i) => {
          await delay(2 * i);
          const socket = await connectFrom(lab.host("client"), DEAD, PORT);
          socket.write("hello");
          return readingEnd(socket);
        }),
      );
      const seconds = (performance.now() - startedAt) / 1000;
      // A reset if the client had said something by then.
      assert.match([...new Set(ends)].join(), /^(ECONNRESET|EOF|ECONNRESET,EOF|EOF,ECONNRESET)$/);
      const [, dials] = /^ +(\d+).* tcp dpt:15008/m.exec(
        lab.net.exec(dead, "iptables", "-nvxL", "INPUT"),
      ) as unknown as [string, string];
      const dialsMax = FIRST_DIALS + Math.ceil(seconds * DIALS_PER_SECOND_MAX);
      assert.ok(Number(dials) <= dialsMax, `${dials} dials in ${seconds} s`);
      assert.ok(Number(dials) > 1, "one refusal is not for ever");
    });

    test(`${CONNECTS} CONNECTs on one session are all served`, { timeout }, async (t) => {
      const client = await ConnectClient.dial(lab, "outside", ADDRESS.server);
      const startedAt = performance.now();
      let left = CONNECTS;
      await Promise.all(
        Array.from({ length: CONNECTS_AT_ONCE }, async () => {
          while (left-- > 0) await client.tryOut(`${ADDRESS.server}:${APP_PORT}`);
        }),
      );
      client.close();
      t.diagnostic(`${Math.round(CONNECTS / ((performance.now() - startedAt) / 1000))} per second`);
    });

    test("a certificate is replaced while a session runs, which goes on", { timeout }, async () => {
      const session = await ConnectClient.dial(lab, "outside", ADDRESS.server);
      const before = await shownSerial(lab);
      const pairs = new PairMaker(lab, PATHS.HBONE, PORT);
      const pair = await pairs.make();
      await talk(pair);
      await waitUntil(async () => (await shownSerial(lab)) !== before, "never renewed");
      // Also beyond the life of the former certificate.
      await delay((SECRET_TTL_S * 1000) / 2);
      await talk(pair);
      await session.tryOut(`${ADDRESS.server}:${APP_PORT}`);
      session.close();
      pairs.close();
    });

    // Its own keep-alive can't tell: the kernel next to it answers, whatever became of the other end.
    test("an application that keeps its connection alive learns that the other's pod is gone", {
      timeout,
    }, async () => {
      const pairs = new PairMaker(lab, { from: "friend", to: "guarded" }, PORT);
      const { client, server } = await pairs.make();
      client.setKeepAlive(true, 1000);
      await talk({ client, server });
      const filter = ["sport", "=", `:${client.localPort}`, "dport", "=", `:${PORT}`];
      const own = (): string => lab.net.exec(lab.host("friend"), "ss", "-Htno", ...filter);
      await waitUntil(() => own().includes("timer:(keepalive,"), "no keep-alive");
      const end = readingEnd(client);
      // No FIN comes out of it any more. There is nothing left of this pod for other tests.
      lab.net.exec(lab.host("guarded"), "ip", "link", "delete", "eth0");
      assert.equal(await end, "ECONNRESET");
      pairs.close();
    });
  });

  test(`one stream above ${STREAMS_MAX} is refused, the others live`, { timeout }, async () => {
    const secured = await dialSecured(lab, "outside", ADDRESS.server);
    const peer = new FramePeer(secured, "client");
    peer.send({ type: "SETTINGS", flags: 0, stream: 0, settings: [] });
    const answered = (stream: number): string | undefined => {
      const frame = peer.received.find((one) => one.stream === stream);
      return frame?.type === "RST_STREAM" ? frame.error : frame?.headers?.[0]?.[1];
    };
    const ids = Array.from({ length: STREAMS_MAX + 1 }, (_, i) => 2 * i + 1);
    const connect = (stream: number): void =>
      peer.send({
        type: "HEADERS",
        flags: FLAG.endHeaders,
        stream,
        headers: [
          [":method", "CONNECT"],
          [":authority", `${ADDRESS.server}:${APP_PORT}`],
        ],
      });
    for (const id of ids) connect(id);
    await waitUntil(() => ids.every((id) => answered(id) !== undefined), "not all are answered");
    assert.deepEqual(
      ids.filter((id) => answered(id) !== "200"),
      [ids.at(-1)],
    );
    assert.equal(answered(ids.at(-1) as number), "REFUSED_STREAM");
    // A place that is free again is given away.
    peer.send({ type: "RST_STREAM", stream: 1, error: "CANCEL" });
    connect(2 * ids.length + 1);
    await waitUntil(() => answered(2 * ids.length + 1) === "200", "the free place is lost");
    peer.leave();
  });

  test("early data is refused, and the handshake goes on without", { timeout }, async () => {
    const said = await earlyData(lab);
    assert.match(said, /Early data was rejected/);
    assert.match(said, /Verify return code: 0 \(ok\)/);
  });

  test("a tunnel is left when its address belongs to another workload", { timeout }, async () => {
    const pairs = new PairMaker(lab, PATHS.HBONE, PORT);
    const former = await pairs.make();
    await talk(former);
    await waitUntil(() => tunnelsTo(lab, ADDRESS.server).length === 1, "not the one tunnel");
    const [formerTunnel] = tunnelsTo(lab, ADDRESS.server);
    lab.changeMesh(MESH.replace("uid: two-nodes//Pod/default/server", "uid: the-next-server"));
    await waitUntil(async () => {
      const dump = await lab.node("node-a").get(15000, "/config_dump");
      return dump.includes("the-next-server");
    }, "the mesh never changed");
    await talk(await pairs.make());
    await waitUntil(() => tunnelsTo(lab, ADDRESS.server).length === 2, "not the two tunnels");
    await talk(former);
    // With its last stream the former tunnel goes, too.
    former.client.destroy();
    former.server.destroy();
    await waitUntil(
      () => !tunnelsTo(lab, ADDRESS.server).includes(formerTunnel as string),
      "the former tunnel stays",
    );
    pairs.close();
  });

  test("a peer that vanishes without a word is noticed by pings, at both ends", {
    timeout,
  }, async () => {
    const pairs = new PairMaker(lab, PATHS.HBONE, PORT);
    const { client, server } = await pairs.make();
    await talk({ client, server });
    const ends = Promise.all([readingEnd(client), readingEnd(server)]);
    const pod = lab.host("server");
    const drop = (how: "-I" | "-D"): void => {
      lab.net.exec(pod, "iptables", how, "INPUT", "-p", "tcp", "--dport", "15008", "-j", "DROP");
      lab.net.exec(pod, "iptables", how, "OUTPUT", "-p", "tcp", "--sport", "15008", "-j", "DROP");
    };
    drop("-I");
    // Not EOF: nobody knows what the other still wanted to say.
    assert.deepEqual(await ends, ["ECONNRESET", "ECONNRESET"]);
    drop("-D");
    const isWarning = (line: string): boolean =>
      /"level":"warn".*"scope":"ztunnel::proxy::h2::client".*"HBONE ping timeout\/error"/.test(
        line,
      );
    await waitUntil(() => lab.node("node-a").lines.some(isWarning), "no line says why");
    await talk(await pairs.make());
    pairs.close();
  });
});

/** An HBONE server on Node's HTTP/2 that echoes. */
class OddServer {
  /** Of sessions from now on. */
  settings: { maxConcurrentStreams?: number; initialWindowSize?: number; maxFrameSize?: number } =
    {};
  streamsAtOnceMax = 0;
  readonly #server: Http2SecureServer;
  readonly #listening: LabServer;
  readonly #sessions: ServerHttp2Session[] = [];
  #newest: ServerHttp2Session | undefined;
  readonly #sockets: Socket[] = [];
  #streamCount = 0;

  private constructor(lab: MeshLab, server: Http2SecureServer) {
    this.#server = server;
    server.on("session", (session) => {
      this.#sessions.push(session);
      session.settings(this.settings);
      let count = 0;
      session.on("error", () => {});
      session.on("stream", (stream) => {
        this.#newest = session;
        this.streamsAtOnceMax = Math.max(this.streamsAtOnceMax, ++count);
        this.#streamCount++;
        stream.on("close", () => {
          count--;
          this.#streamCount--;
        });
        stream.on("error", () => {});
        stream.respond({ ":status": 200 });
        stream.pipe(stream);
      });
    });
    this.#listening = listenOn(lab.host("odd"), 15008, (socket: Socket) => {
      this.#sockets.push(socket);
      server.emit("connection", socket);
    });
  }

  static async listen(lab: MeshLab): Promise<OddServer> {
    const certificate = await labCertificate(lab, workloadName("odd"));
    return new OddServer(lab, createSecureServer({ ...certificate, requestCert: true }));
  }

  /** With the newest stream. */
  get newestSession(): ServerHttp2Session {
    return this.#newest as ServerHttp2Session;
  }

  /** Of all sessions. */
  get streamCount(): number {
    return this.#streamCount;
  }

  /** Ends every session without a word. */
  breakOff(): void {
    for (const socket of this.#sockets.splice(0)) socket.destroy();
  }

  close(): void {
    this.#listening.close();
    for (const session of this.#sessions) session.destroy();
    this.#server.close();
  }
}

/** Own ends of the client's tunnels to an address. */
function tunnelsTo(lab: MeshLab, ip: string): readonly string[] {
  const filter = ["state", "established", "dst", `${ip}:15008`];
  return lab.net
    .exec(lab.host("client"), "ss", "-Htn", ...filter)
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => line.trim().split(/\s+/)[2] as string);
}

async function dialSecured(lab: MeshLab, from: string, ip: string): Promise<TLSSocket> {
  const socket = await connectFrom(lab.host(from), ip, 15008);
  const secured = connectTls({
    socket,
    ...(await labCertificate(lab, workloadName(from))),
    ALPNProtocols: ["h2"],
    checkServerIdentity: () => undefined,
  });
  await once(secured, "secureConnect");
  return secured;
}

/** Serial number of the certificate that the server's proxy shows to newcomers. */
async function shownSerial(lab: MeshLab): Promise<string> {
  const secured = await dialSecured(lab, "outside", ADDRESS.server);
  const { serialNumber } = secured.getPeerCertificate();
  secured.destroy();
  return serialNumber;
}

/**
 * OpenSSL as a client that got a session for early data elsewhere, from a server of the same
 * certificate, and offers it to 15008. @returns what it says.
 */
async function earlyData(lab: MeshLab): Promise<string> {
  const { cert, key, ca } = await labCertificate(lab, workloadName("outside"));
  const file = (name: string, text: string): string => {
    const path = join(lab.folder, name);
    writeFileSync(path, text);
    return path;
  };
  const credentials = [
    ...["-cert", file("early-cert.pem", cert), "-key", file("early-key.pem", key)],
    ...["-CAfile", file("early-ca.pem", ca)],
  ];
  const session = join(lab.folder, "session.pem");
  const outside = lab.host("outside");
  const server = lab.net.spawn(
    outside,
    "openssl",
    ...["s_server", "-accept", "7443", "-early_data", "-quiet", ...credentials],
  );
  const client = (...args: string[]): string =>
    execFileSync(
      "nsenter",
      [`--net=${outside.path}`, "--", "openssl", "s_client", ...credentials, ...args],
      { input: "", encoding: "utf8", stdio: ["pipe", "pipe", "pipe"], timeout: 30_000 },
    );
  await waitUntil(() => {
    try {
      return client("-connect", "127.0.0.1:7443", "-sess_out", session, "-ign_eof").length > 0;
    } catch {
      return false;
    }
  }, "no session for early data");
  server.kill();
  const early = file("early-data", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  return client(
    ...["-connect", `${ADDRESS.server}:15008`, "-alpn", "h2"],
    ...["-sess_in", session, "-early_data", early],
  );
}

function withWorkloads(mesh: string, added: Readonly<Record<string, string>>): string {
  const texts = Object.entries(added).map(
    ([name, ip]) => `  - uid: two-nodes//Pod/default/${name}
    name: ${name}
    namespace: default
    serviceAccount: ${name}
    trustDomain: cluster.local
    workloadIps: ["${ip}"]
    protocol: HBONE
    node: elsewhere
    services: {}
`,
  );
  return mesh.replace("services:\n  - name", `${texts.join("")}services:\n  - name`);
}
