/** Connections of which one side has gone, in order or without a word, and the other is silent. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, afterEach, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { LIMITS } from "../../src/config/limits.ts";
import type { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import {
  APP_PORT,
  IPV6_ADDRESS,
  kernelView,
  PATHS,
  PairMaker,
  type PathName,
  readingEnd,
  startTwoNodes,
  talk,
} from "../support/two-nodes.ts";
import { waitUntil } from "../support/wait-until.ts";

/** Long enough for a busy machine to say something in between. */
const HALF_CLOSED_IDLE_MS = 2000;
const WORDS_EVERY_MS = 200;
const KEEPALIVE_S = 1;
const IDLE_MS = 2000;

const timeout = 150_000;

describe("connections that go quiet", { skip: requireNetns("iptables", "ss") }, () => {
  let lab: MeshLab;
  let made: PairMaker[] = [];
  const pairsAlong = (path: (typeof PATHS)[PathName], port = APP_PORT): PairMaker => {
    const pairs = new PairMaker(lab, path, port);
    made.push(pairs);
    return pairs;
  };

  before(async () => {
    lab = await startTwoNodes({
      environment: {
        HALF_CLOSED_IDLE_TIMEOUT: `${HALF_CLOSED_IDLE_MS / 1000}s`,
        KEEPALIVE_TIME: `${KEEPALIVE_S}s`,
        KEEPALIVE_INTERVAL: `${KEEPALIVE_S}s`,
        KEEPALIVE_RETRIES: "2",
      },
      environmentOf: { "node-b": { USER_TIMEOUT_ENABLED: "true" } },
    });
  });
  after(() => lab?.close());
  afterEach(() => {
    for (const pairs of made) pairs.close();
    made = [];
  });

  test("half-closed ones are reset, unless a byte moves now and then", { timeout }, async () => {
    const stuck = leftUnread(pairsAlong(PATHS.passthrough, APP_PORT + 8), lab);
    const talking = lastingWords(pairsAlong(PATHS.HBONE, APP_PORT + 9));
    const silent = Object.entries(PATHS).flatMap(([name, path], i) =>
      (["client", "server"] as const).map(async (role, j) => {
        const { client, server } = await pairsAlong(path, APP_PORT + 2 * i + j).make();
        const [one, other] = role === "client" ? [client, server] : [server, client];
        const otherHost = lab.host(role === "client" ? path.to : path.from);
        const otherInKernel = kernelView(lab, otherHost, other);
        const oneEnd = readingEnd(one);
        one.end();
        assert.equal(await readingEnd(other), "EOF", `${name} ${role}`);
        assert.equal(await oneEnd, "ECONNRESET", `${name} ${role}`);
        await waitUntil(() => otherInKernel() === "", `${name} ${role}: the other is not told`);
      }),
    );
    await Promise.all(silent);
    await waitUntil(
      () =>
        lab
          .node("node-a")
          .lines.some((line) =>
            /"level":"error".*"error":"half-closed and idle for 2s"/.test(line),
          ),
      "no line says why",
    );
    assert.equal(await talking, "EOF");
    await stuck;
    for (const pod of ["client", "server"]) {
      const left = (): string =>
        lab.net.exec(lab.host(pod), "ss", "-Htn", "state", "close-wait", "state", "fin-wait-2");
      await waitUntil(() => left() === "", `${pod}: ${left()}`);
    }
  });

  // After that a reset does not reach the application any more: its CLOSE_WAIT would stay for ever.
  test("half-closed ones are reset before conntrack forgets them, by default", () => {
    const said = lab.net.exec(lab.host("client"), "cat", CLOSE_WAIT_TIMEOUT);
    const noticedAfterMs = 1.25 * LIMITS.halfClosedIdle.value;
    assert.ok(noticedAfterMs < 1000 * Number(said), `${noticedAfterMs} ms, ${said.trim()} s`);
  });

  test("keep-alive is on where it is asked for, and on no tunnel that pings", async () => {
    const paths = [PATHS.HBONE, PATHS["plaintext inbound"], PATHS.passthrough];
    for (const [i, path] of paths.entries()) await pairsAlong(path, APP_PORT + i).make();
    const overIpv6 = pairsAlong(PATHS.HBONE, APP_PORT + 3);
    await overIpv6.make(IPV6_ADDRESS.server);
    // What the daemons hold in the pods; applications here ask for none.
    const timers = (pod: string, filter: string): number =>
      lab.net
        .exec(lab.host(pod), "ss", "-Htno", "state", "established", filter)
        .split("\n")
        .filter((line) => line.includes("timer:(keepalive")).length;
    // What is not acknowledged yet has another timer.
    const become = (pod: string, filter: string, count: number): Promise<void> =>
      waitUntil(
        () => timers(pod, filter) === count,
        `not ${count} with keep-alive in ${pod}: ${filter}`,
      );
    await become("client", "( sport = :15001 )", 3);
    await become("client", `( sport = :15001 and dst [${IPV6_ADDRESS.client}] )`, 1);
    // Dialled to the peer's 15008 in either family, and to the host outside.
    await become("client", "( dport = :15008 )", 2);
    await become("client", `( dst [${IPV6_ADDRESS.server}]:15008 )`, 1);
    await become("client", `( dport = :${APP_PORT + 2} and not dst 127.0.0.1 )`, 1);
    await become("server", "( sport = :15008 )", 0);
    await become("server", "( sport = :15006 )", 1);
    // To the applications.
    await become("server", `( dport = :${APP_PORT} )`, 1);
    await become("server", `( dport = :${APP_PORT + 3} )`, 1);
  });

  test("a host that vanishes is noticed: by keep-alive, or by the user time-out since it acknowledges nothing", {
    timeout,
  }, async () => {
    const silent = await pairsAlong(PATHS.passthrough).make();
    // USER_TIMEOUT_ENABLED on its node; without it the kernel tries for a quarter of an hour.
    const unheard = await pairsAlong(PATHS["plaintext inbound"], APP_PORT + 1).make();
    const ends = [readingEnd(silent.client), readingEnd(unheard.server)];
    const outside = lab.host("outside");
    lab.net.exec(outside, "iptables", "-I", "INPUT", "-j", "DROP");
    unheard.server.write("hello");
    assert.deepEqual(await Promise.all(ends), ["ECONNRESET", "ECONNRESET"]);
    lab.net.exec(outside, "iptables", "-D", "INPUT", "-j", "DROP");
    for (const node of ["node-a", "node-b"]) {
      const isLogged = (line: string): boolean =>
        line.includes("Connection timed out (os error 110)");
      await waitUntil(() => lab.node(node).lines.some(isLogged), `${node} does not say why`);
    }
  });

  test("idle ones are closed where nobody wants them, unless a byte moves now and then", {
    timeout,
  }, async () => {
    const old = lab.node("node-a");
    const daemon = await lab.startSuccessor("node-a", "10.66.0.100", {
      CONNECTION_IDLE_TIMEOUT: `${IDLE_MS / 1000}s`,
    });
    const exited = once(old.process, "exit");
    old.process.kill("SIGTERM");
    await exited;
    const talking = await pairsAlong(PATHS.HBONE, APP_PORT + 9).make();
    const silent = Object.values(OUT_OF_CLIENT).map(async (path, i) => {
      const pair = await pairsAlong(path, APP_PORT + i).make();
      await talk(pair);
      return Promise.all([readingEnd(pair.client), readingEnd(pair.server)]);
    });
    // Nothing is missing, so that it is the orderly end which pools of connections know.
    const ends = Promise.all(silent);
    for (let ms = 0; ms < 1.4 * IDLE_MS; ms += WORDS_EVERY_MS) {
      await talk(talking);
      await delay(WORDS_EVERY_MS);
    }
    assert.deepEqual(await ends, [
      ["EOF", "EOF"],
      ["EOF", "EOF"],
    ]);
    await talk(talking);
    const said = (): readonly string[] =>
      daemon.lines.filter((line) => line.includes('"error":"idle for 2s"'));
    await waitUntil(() => said().length === 2, "not each has its line");
    const counted = /^istio_tcp_connections_closed_total\{.*response_flags="IDLE_TIMEOUT".*\} 1$/gm;
    assert.equal((await daemon.metrics()).match(counted)?.length, 2);
  });
});

const OUT_OF_CLIENT = { HBONE: PATHS.HBONE, passthrough: PATHS.passthrough };
const CLOSE_WAIT_TIMEOUT = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";

/** The client ends its direction, the server goes on for longer than silence may last. */
async function lastingWords(pairs: PairMaker): Promise<string> {
  const { client, server } = await pairs.make();
  const end = readingEnd(client);
  client.end();
  await readingEnd(server);
  for (let ms = 0; ms < 1.4 * HALF_CLOSED_IDLE_MS; ms += WORDS_EVERY_MS) {
    server.write("x");
    await delay(WORDS_EVERY_MS);
  }
  server.end();
  return end;
}

/**
 * The server reads nothing; the client says more than there is room for, and leaves. Settles when
 * both were reset: the proxy holds a FIN that it can't read up to.
 */
async function leftUnread(pairs: PairMaker, lab: MeshLab): Promise<void> {
  const { client, server } = await pairs.make();
  server.pause();
  const serverInKernel = kernelView(lab, lab.host("outside"), server);
  const filter = [
    "state",
    "connected",
    "sport",
    "=",
    ":15001",
    "dport",
    "=",
    `:${client.localPort}`,
  ];
  const accepted = (): string => lab.net.exec(lab.host("client"), "ss", "-Htna", ...filter);
  const piece = Buffer.alloc(65_536);
  // Until some of it stays unread in the proxy's kernel; that is little, so that the FIN comes, too.
  while (!/^\S+ +[1-9]/.test(accepted())) {
    client.write(piece);
    await delay(5);
  }
  const end = readingEnd(client);
  client.end();
  await waitUntil(() => accepted().startsWith("CLOSE-WAIT"), "the end never came");
  assert.equal(await end, "ECONNRESET");
  await waitUntil(() => serverInKernel() === "", "the server is not told");
}
