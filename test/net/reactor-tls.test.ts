import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { connect as connectTcp, type Socket } from "node:net";
import { afterEach, before, beforeEach, describe, test } from "node:test";
import {
  type ConnectionOptions,
  connect as connectTls,
  createServer,
  type TLSSocket,
  type TlsOptions,
} from "node:tls";
import type { WorkloadCertificate } from "../../src/mesh/workload-certificate.ts";
import type { ReactorFailure } from "../../src/net/reactor-failure.ts";
import { makeTlsContext, type TlsContext } from "../../src/net/tls-context.ts";
import { LeakCheck } from "../support/leak-check.ts";
import { emptyBesideOthers, pattern, ReactorLab } from "../support/reactor-lab.ts";
import { dnsName, expired, type TestCa, testCa, testIdentity } from "../support/test-ca.ts";
import { chainDer } from "../support/test-crl.ts";

const GROUPS = "X25519:P-256:P-384:?X25519MLKEM768";
const MIB = 1024 * 1024;
/** The extension of RFC 7301. */
const ALPN = 16;
/** RFC 8446 section 6. */
const [BAD_CERTIFICATE, CERTIFICATE_EXPIRED, UNKNOWN_CA] = [42, 45, 48];

let ca: TestCa;
let alice: WorkloadCertificate;
let bob: WorkloadCertificate;
let leaks: LeakCheck;
let lab: ReactorLab;
before(async () => {
  ca = await testCa();
  alice = await ca.certificate(testIdentity("alice"));
  bob = await ca.certificate(testIdentity("bob"), { intermediate: true });
});
beforeEach(() => {
  leaks = new LeakCheck();
  lab = new ReactorLab();
});
afterEach(async () => {
  lab.close();
  await leaks.assertNone();
});

function contextOf(
  certificate: WorkloadCertificate,
  options: { tls12?: boolean; groups?: string } = {},
): TlsContext {
  return makeTlsContext({
    chainPem: certificate.chainPem.join("\n"),
    keyPem: certificate.privateKeyPem,
    rootsPem: certificate.rootsPem.join("\n"),
    tls12: options.tls12 ?? false,
    groups: options.groups ?? GROUPS,
  });
}

/** A client and a server on one connection, handshake under way. */
async function tunnel(
  client: TlsContext,
  server: TlsContext,
): Promise<{ near: number; far: number }> {
  const pair = await lab.pair(lab.listen());
  lab.reactor.startTls(pair.far, server, true);
  lab.reactor.startTls(pair.near, client, false);
  return pair;
}

async function openTunnel(
  client: TlsContext = contextOf(alice),
  server: TlsContext = contextOf(bob),
): Promise<{ near: number; far: number }> {
  const pair = await tunnel(client, server);
  await lab.expect(pair.near, "OPEN");
  await lab.expect(pair.far, "OPEN");
  return pair;
}

function leafDer(certificate: WorkloadCertificate): Buffer {
  return new X509Certificate(certificate.chainPem[0] ?? "").raw;
}

function nodeOptions(certificate: WorkloadCertificate): TlsOptions & ConnectionOptions {
  return {
    cert: certificate.chainPem.join("\n"),
    key: certificate.privateKeyPem,
    ca: [...certificate.rootsPem],
    ALPNProtocols: ["h2"],
    minVersion: "TLSv1.3",
    checkServerIdentity: () => undefined,
  };
}

describe("a tunnel", () => {
  test("opens in both roles, each knowing the other's chain", async () => {
    const { near, far } = await openTunnel();
    for (const [id, peer] of [
      [near, bob],
      [far, alice],
    ] as const) {
      const chain = chainDer([...peer.chainPem, ...peer.rootsPem]);
      assert.deepEqual(Buffer.from(lab.reactor.peerChain(id)), chain);
    }
  });

  test("opens once when TLS was asked for before the connection was there", async () => {
    const listener = lab.listen();
    const near = lab.connect(listener.port);
    lab.reactor.startTls(near, contextOf(alice), false);
    const far = (await lab.expect(listener.id, "ACCEPT")).a;
    lab.reactor.startTls(far, contextOf(bob), true);
    await lab.expect(far, "OPEN");
    await lab.expect(near, "OPEN");
    lab.write(near, "x");
    await lab.read(far, 1);
    assert.deepEqual(lab.unseen(near), []);
  });

  test("carries megabytes both ways at once, whole", async () => {
    const { near, far } = await openTunnel();
    const sent = pattern(8 * MIB);
    lab.write(near, sent);
    lab.write(far, sent);
    assert(lab.pending(near) > 0);
    const [up, down] = await Promise.all([lab.read(far, sent.length), lab.read(near, sent.length)]);
    assert.deepEqual(up, sent);
    assert.deepEqual(down, sent);
    assert.deepEqual(
      [near, far].map((id) => lab.pending(id)),
      [0, 0],
    );
  });

  test("tells that its queue is empty also when the turn of others has emptied it", async () => {
    await emptyBesideOthers(lab, await openTunnel(), 8 * MIB);
  });

  test("carries writes of every size in order, small ones together", async () => {
    const { near, far } = await openTunnel();
    const sent = pattern(60_000);
    lab.reactor.arena.set(sent, lab.scratchOffset);
    let at = 0;
    for (const length of [1, 0, 4095, 4096, 1, 16_383, 2, 16_384, 4000, 4000, 4000, 4000, 3038]) {
      lab.queue("WRITE", near, lab.scratchOffset + at, length);
      at += length;
    }
    lab.flush();
    assert.equal(at, sent.length);
    assert.deepEqual(await lab.read(far, sent.length), sent);
  });

  test("ends in halves by close_notify", async () => {
    const { near, far } = await openTunnel();
    lab.write(near, "question");
    lab.perform("END", near);
    assert.equal((await lab.read(far, 8)).toString(), "question");
    await lab.expect(far, "EOF");
    lab.write(far, "answer");
    lab.perform("END", far);
    assert.equal((await lab.read(near, 6)).toString(), "answer");
    await lab.expect(near, "EOF");
  });

  test("moves to new keys while bytes flow", async () => {
    lab.close();
    const eager = new ReactorLab({ rekeyBytes: 50_000 });
    try {
      const context = (certificate: WorkloadCertificate): TlsContext =>
        makeTlsContext({
          chainPem: certificate.chainPem.join("\n"),
          keyPem: certificate.privateKeyPem,
          rootsPem: certificate.rootsPem.join("\n"),
          tls12: false,
          groups: GROUPS,
        });
      const { near, far } = await eager.pair(eager.listen());
      eager.reactor.startTls(far, context(bob), true);
      eager.reactor.startTls(near, context(alice), false);
      await eager.expect(near, "OPEN");
      await eager.expect(far, "OPEN");
      const sent = pattern(MIB);
      eager.write(near, sent);
      eager.write(far, sent);
      assert.deepEqual(await eager.read(far, sent.length), sent);
      assert.deepEqual(await eager.read(near, sent.length), sent);
    } finally {
      eager.close();
    }
  });

  test("goes on with its context while new ones get another", async () => {
    const [old, server] = [contextOf(alice), contextOf(bob)];
    const first = await openTunnel(old, server);
    const carol = await ca.certificate(testIdentity("carol"));
    const second = await openTunnel(contextOf(carol), server);
    for (const { near, far } of [first, second]) {
      lab.write(near, "alive");
      assert.equal((await lab.read(far, 5)).toString(), "alive");
    }
    for (const [id, peer] of [
      [first.far, alice],
      [second.far, carol],
    ] as const) {
      const leaf = leafDer(peer);
      assert.deepEqual(Buffer.from(lab.reactor.peerChain(id).subarray(0, leaf.length)), leaf);
    }
  });

  test("asks for nothing but what the mesh speaks", async () => {
    const { near, far } = await lab.pair(lab.listen());
    lab.allow(far);
    lab.reactor.startTls(near, contextOf(alice), false);
    const hello = readClientHello((await lab.expect(far, "DATA")).bytes);
    assert.deepEqual(hello.suites, [0x1302, 0x1301]);
    assert.deepEqual(hello.extensions.get(ALPN)?.toString("latin1"), "\0\x03\x02h2");
    // Neither server_name, compress_certificate (which costs more than all the rest of a handshake)
    // nor session_ticket, nor pre_shared_key.
    for (const extension of [0, 27, 35, 41]) assert(!hello.extensions.has(extension));
  });

  test("speaks TLS 1.2 when allowed to", async () => {
    const { near, far } = await lab.pair(lab.listen());
    lab.reactor.startTls(far, contextOf(bob, { tls12: true }), true);
    lab.reactor.startTls(near, contextOf(alice, { tls12: true }), false);
    await lab.expect(near, "OPEN");
    await lab.expect(far, "OPEN");
    lab.write(near, "hello");
    assert.equal((await lab.read(far, 5)).toString(), "hello");
  });
});

describe("a peer is refused", () => {
  const refusal = (alert: number, reason: string): ReactorFailure => ({
    kind: "alert",
    alert,
    reason,
  });

  test("by the client when its chain leads elsewhere", async () => {
    const other = await testCa();
    const stranger = await other.certificate(testIdentity("bob"), { trustedRootPem: ca.rootPem });
    const { near, far } = await tunnel(contextOf(alice), contextOf(stranger));
    const event = await lab.expect(near, "ERROR");
    assert.deepEqual(event.failure, {
      kind: "untrusted",
      verifyCode: 20,
      reason: "certificate verify failed: unable to get local issuer certificate",
    });
    const { failure } = await lab.expect(far, "ERROR");
    assert.deepEqual(failure, refusal(UNKNOWN_CA, "tlsv1 alert unknown ca"));
  });

  test("by the server when its certificate has expired, which the client learns after OPEN", async () => {
    const late = await ca.certificate(testIdentity("alice"), expired());
    const { near, far } = await tunnel(contextOf(late), contextOf(bob));
    assert.equal(
      (await lab.expect(far, "ERROR")).text,
      "certificate verify failed: certificate has expired",
    );
    await lab.expect(near, "OPEN");
    const { failure } = await lab.expect(near, "ERROR");
    assert.deepEqual(failure, refusal(CERTIFICATE_EXPIRED, "ssl/tls alert certificate expired"));
  });

  for (const [role, purpose] of [
    ["client", "server"],
    ["server", "client"],
  ] as const) {
    test(`as a ${role} when its certificate is only for a ${purpose}`, async () => {
      const wrong = await ca.certificate(testIdentity("bob"), { purposes: [purpose] });
      const isClient = role === "client";
      const pair = await tunnel(
        contextOf(isClient ? wrong : alice),
        contextOf(isClient ? bob : wrong),
      );
      const event = await lab.expect(isClient ? pair.far : pair.near, "ERROR");
      assert.match(
        event.text,
        /^certificate verify failed: (unsuitable|unsupported) certificate purpose$/,
      );
    });
  }

  test("never for its names", async () => {
    const named = await ca.certificate(testIdentity("bob"), { names: [dnsName("example.com")] });
    await openTunnel(contextOf(alice), contextOf(named));
  });

  test("with the alert that JavaScript chose", async () => {
    const { near, far } = await openTunnel();
    lab.perform("ALERT", far, BAD_CERTIFICATE);
    const { failure } = await lab.expect(near, "ERROR");
    assert.deepEqual(failure, refusal(BAD_CERTIFICATE, "ssl/tls alert bad certificate"));
    assert.throws(() => lab.reactor.fdOf(far), { name: "TypeError" });
  });

  for (const alert of [40, 46, 49, 80, 109, 116, 120]) {
    test(`and alert ${alert} is told`, async () => {
      const { near, far } = await openTunnel();
      lab.perform("ALERT", near, alert);
      const { failure, text } = await lab.expect(far, "ERROR");
      assert.deepEqual(failure, refusal(alert, text));
      assert.match(text, / alert /);
    });
  }

  test("when it sends something else than TLS", async () => {
    const { near, far } = await lab.pair(lab.listen());
    lab.reactor.startTls(far, contextOf(bob), true);
    lab.allow(near);
    lab.write(near, "GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    const event = await lab.expect(far, "ERROR");
    assert.deepEqual(event.failure, { kind: "protocol", reason: "http request" });
    lab.perform("ALERT", far, 50);
    assert.deepEqual([...(await lab.expect(near, "DATA")).bytes], [21, 3, 3, 0, 2, 2, 50]);
  });

  test("silently when it leaves during the handshake", async () => {
    const { near, far } = await lab.pair(lab.listen());
    lab.reactor.startTls(far, contextOf(bob), true);
    lab.perform("END", near);
    await lab.expect(far, "EOF");
  });
});

describe("a FIN without close_notify", () => {
  test("is the end as well", async () => {
    const { near, far } = await openTunnel();
    lab.write(near, "last");
    lab.perform("CLOSE", near);
    assert.equal((await lab.read(far, 4)).toString(), "last");
    await lab.expect(far, "EOF");
  });
});

describe("contexts", () => {
  for (const [name, change, message] of [
    ["no certificate", { chainPem: "" }, "chainPem: no PEM block"],
    ["a broken certificate", { chainPem: broken("CERTIFICATE") }, /^chain: /],
    ["no key", { keyPem: "nothing" }, /^keyPem: /],
    ["a root that is none", { rootsPem: "nothing" }, "rootsPem: no PEM block"],
    ["a group that is none", { groups: "X25519:nonsense" }, /^Groups: /],
  ] as const) {
    test(`with ${name} are refused in OpenSSL's words`, () => {
      const good = {
        chainPem: alice.chainPem.join("\n"),
        keyPem: alice.privateKeyPem,
        rootsPem: ca.rootPem,
        tls12: false,
        groups: GROUPS,
      };
      assert.throws(() => makeTlsContext({ ...good, ...change }), { message });
    });
  }

  test("with an optional group that is none go without it", async () => {
    const groups = "X25519:?nonsense";
    const { near, far } = await tunnel(contextOf(alice, { groups }), contextOf(bob, { groups }));
    await lab.expect(near, "OPEN");
    await lab.expect(far, "OPEN");
  });

  test("with the key of another are refused", () => {
    assert.throws(() => contextOf({ ...alice, privateKeyPem: bob.privateKeyPem }), {
      message: "key: key values mismatch",
    });
  });

  test("that are unknown start nothing", async () => {
    const { near } = await lab.pair(lab.listen());
    assert.throws(() => lab.reactor.startTls(near, {}, true), {
      message: "context must be a TLS context",
    });
  });

  test("start no second TLS on one connection, nor after plain bytes", async () => {
    const context = contextOf(alice);
    const { near, far } = await lab.pair(lab.listen());
    lab.reactor.startTls(near, context, false);
    const message = "only a plain connection in its first state can begin TLS";
    assert.throws(() => lab.reactor.startTls(near, context, false), { message });
    lab.perform("END", far);
    assert.throws(() => lab.reactor.startTls(far, context, true), { message });
  });
});

describe("Node's TLS", () => {
  test("as a client talks to a tunnel", async () => {
    const listener = lab.listen();
    const context = contextOf(bob);
    const socket = connectTls({ port: listener.port, host: "127.0.0.1", ...nodeOptions(alice) });
    const secured = once(socket, "secureConnect");
    const far = (await lab.expect(listener.id, "ACCEPT")).a;
    lab.reactor.startTls(far, context, true);
    await lab.expect(far, "OPEN");
    await secured;
    assert.equal(socket.alpnProtocol, "h2");
    assert.equal(socket.getProtocol(), "TLSv1.3");
    assert.equal(socket.getCipher().name, "TLS_AES_256_GCM_SHA384");
    assert.equal(socket.isSessionReused(), false);
    const sent = pattern(MIB);
    const received: Buffer[] = [];
    socket.on("data", (bytes: Buffer) => received.push(bytes));
    const ended = once(socket, "end");
    socket.write(sent);
    assert.deepEqual(await lab.read(far, sent.length), sent);
    lab.write(far, sent);
    lab.perform("END", far);
    await ended;
    assert.deepEqual(Buffer.concat(received), sent);
    socket.end();
    await lab.expect(far, "EOF");
    socket.destroy();
  });

  test("as a server talks to a tunnel", async () => {
    const server = createServer({ ...nodeOptions(bob), requestCert: true }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    assert(address !== null && typeof address === "object");
    const near = lab.connect(address.port);
    lab.reactor.startTls(near, contextOf(alice), false);
    const socket = await new Promise<TLSSocket>((resolve) =>
      server.once("secureConnection", resolve),
    );
    await lab.expect(near, "OPEN");
    assert.equal(socket.authorized, true);
    assert.equal((socket as { servername?: unknown }).servername, false);
    assert.deepEqual(socket.getPeerX509Certificate()?.raw, leafDer(alice));
    const sent = pattern(MIB);
    lab.write(near, sent);
    const received: Buffer[] = [];
    await new Promise<void>((resolve) => {
      socket.on("data", (bytes: Buffer) => {
        received.push(bytes);
        if (received.reduce((sum, { length }) => sum + length, 0) === sent.length) resolve();
      });
    });
    assert.deepEqual(Buffer.concat(received), sent);
    socket.write(sent);
    assert.deepEqual(await lab.read(near, sent.length), sent);
    lab.perform("END", near);
    socket.end();
    await lab.expect(near, "EOF");
    socket.destroy();
    server.close();
  });

  for (const [name, options, reason, alert] of [
    ["without a certificate", { cert: "", key: "" }, "peer did not return a certificate", 116],
    ["that offers another protocol only", { ALPNProtocols: ["http/1.1"] }, undefined, 120],
    [
      "that has no suite of ours",
      { ciphers: "TLS_CHACHA20_POLY1305_SHA256" },
      "no shared cipher",
      40,
    ],
    [
      "that knows no TLS 1.3",
      { minVersion: "TLSv1.2", maxVersion: "TLSv1.2" },
      "unsupported protocol",
      70,
    ],
  ] as const) {
    test(`as a client ${name} is refused with alert ${alert}`, async () => {
      const listener = lab.listen();
      const socket = connectTls({
        port: listener.port,
        host: "127.0.0.1",
        ...nodeOptions(alice),
        ...(options as ConnectionOptions),
      });
      const failed = new Promise<Error>((resolve) => socket.once("error", resolve));
      const far = (await lab.expect(listener.id, "ACCEPT")).a;
      lab.reactor.startTls(far, contextOf(bob), true);
      const event = await lab.expect(far, "ERROR");
      assert.equal(event.failure?.kind, "protocol");
      if (reason !== undefined) assert.equal(event.text, reason);
      assert.match((await failed).message, new RegExp(`SSL alert number ${alert}`));
      socket.destroy();
    });
  }

  test("as a client that offers no protocol is accepted", async () => {
    const listener = lab.listen();
    const { ALPNProtocols: _, ...options } = nodeOptions(alice);
    const socket = connectTls({ port: listener.port, host: "127.0.0.1", ...options });
    const far = (await lab.expect(listener.id, "ACCEPT")).a;
    lab.reactor.startTls(far, contextOf(bob), true);
    await lab.expect(far, "OPEN");
    socket.destroy();
  });
});

test("a tunnel's reset is told like that of any connection", async () => {
  const listener = lab.listen();
  const socket: Socket = connectTcp(listener.port, "127.0.0.1");
  const far = (await lab.expect(listener.id, "ACCEPT")).a;
  lab.reactor.startTls(far, contextOf(bob), true);
  socket.resetAndDestroy();
  assert.equal((await lab.expect(far, "ERROR")).text, "ECONNRESET");
});

/** Suites and extensions of RFC 8446 section 4.1.2, from a record of its own. */
function readClientHello(record: Uint8Array): {
  suites: number[];
  extensions: Map<number, Buffer>;
} {
  const bytes = Buffer.from(record);
  // Record, message, version and random.
  let at = 5 + 4 + 2 + 32;
  at += 1 + bytes.readUInt8(at);
  const suites: number[] = [];
  const suitesEnd = at + 2 + bytes.readUInt16BE(at);
  for (at += 2; at < suitesEnd; at += 2) suites.push(bytes.readUInt16BE(at));
  // Compression and the length of what follows.
  at += 1 + bytes.readUInt8(at) + 2;
  const extensions = new Map<number, Buffer>();
  while (at < bytes.length) {
    const end = at + 4 + bytes.readUInt16BE(at + 2);
    extensions.set(bytes.readUInt16BE(at), bytes.subarray(at + 4, end));
    at = end;
  }
  return { suites, extensions };
}

function broken(label: string): string {
  return `-----BEGIN ${label}-----\nAAAA\n-----END ${label}-----\n`;
}

function once(
  emitter: { once(name: string, done: () => void): unknown },
  name: string,
): Promise<void> {
  return new Promise((resolve) => emitter.once(name, resolve));
}
