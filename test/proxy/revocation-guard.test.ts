import assert from "node:assert/strict";
import { test } from "node:test";
import { formatSpiffeId, type Identity } from "../../src/mesh/identity.ts";
import type { WorkloadCertificate } from "../../src/mesh/workload-certificate.ts";
import { RevocationGuard } from "../../src/proxy/revocation-guard.ts";
import { TrafficMetrics } from "../../src/proxy/traffic-metrics.ts";
import { parseRevocationLists } from "../../src/tls/revocation-list.ts";
import { memoryCertificate } from "../support/memory-certificate.ts";
import { quiet } from "../support/memory-engine.ts";
import { testCa } from "../support/test-ca.ts";
import { buildCrl, chainDer } from "../support/test-crl.ts";
import { dialPeer, type Lab, makeLab, type Node } from "./lab.ts";

const ca = await testCa();
const issued = new Map<string, WorkloadCertificate>();
for (const serviceAccount of ["client1", "client2", "server1", "server2"]) {
  const identity = { trustDomain: "cluster.local", namespace: "default", serviceAccount };
  issued.set(formatSpiffeId(identity), await ca.certificate(identity, { intermediate: true }));
}

/** The engine in memory takes certificates as DER in base64. */
function inMemory(certificate: WorkloadCertificate): WorkloadCertificate {
  const bare = (pem: string): string => Buffer.from(chainDer([pem])).toString("base64");
  return {
    ...certificate,
    chainPem: certificate.chainPem.map(bare),
    rootsPem: certificate.rootsPem.map(bare),
  };
}

function real(serviceAccount: string): WorkloadCertificate {
  const found = issued.get(`spiffe://cluster.local/ns/default/sa/${serviceAccount}`);
  assert.ok(found !== undefined);
  return found;
}

function guardedLab(): Lab {
  const lab = makeLab("info", { checkRevocation: true });
  const held = new Map<string, WorkloadCertificate>();
  const certificateFor = async (identity: Identity): Promise<WorkloadCertificate> => {
    const id = formatSpiffeId(identity);
    const certificate = held.get(id) ?? inMemory(issued.get(id) ?? memoryCertificate(identity));
    held.set(id, certificate);
    return certificate;
  };
  lab.a.certificateFor = certificateFor;
  lab.b.certificateFor = certificateFor;
  return lab;
}

/** Revokes one link of the chains of these and nothing else. */
async function revoke(node: Node, link: 0 | 1, ...accounts: string[]): Promise<void> {
  const files = await Promise.all(
    accounts.map((account) => {
      const [leaf, intermediate] = real(account).chainPem as [string, string];
      return link === 0
        ? buildCrl(ca.signer(intermediate), [leaf])
        : buildCrl(ca.signer(), [intermediate]);
    }),
  );
  node.revocations.update(files.flatMap(parseRevocationLists));
}

async function echo(lab: Lab, client: string, server: string) {
  const socket = lab.pod(client).dial(`10.77.0.2${server.at(-1)}:8080`);
  socket.write("x");
  await quiet();
  assert.equal(socket.read(), "xx");
  return socket;
}

function errors(node: Node): unknown[] {
  return node.log
    .of("access")
    .map(({ fields }) => Object.fromEntries(fields)["error"])
    .filter((error) => error !== undefined);
}

function rejected(node: Node): readonly [source: number, destination: number] {
  const { revocations } = node.traffic.collect();
  return [revocations.source.rejected, revocations.destination.rejected];
}

const CUT_OFF = "connection closed: peer certificate revoked by CRL";

for (const [what, link] of [
  ["leaf", 0],
  ["intermediate", 1],
] as const) {
  test(`a client whose ${what} is revoked is cut off, others are not, and it does not come back`, async () => {
    const lab = guardedLab();
    const [bad, good] = [
      await echo(lab, "client1", "server1"),
      await echo(lab, "client2", "server1"),
    ];
    await revoke(lab.b, link, "client1");
    await lab.clock.advance(100);
    assert.equal(bad.readEnd, "reset");
    assert.deepEqual(errors(lab.b), [CUT_OFF]);
    good.write("y");
    await quiet();
    assert.equal(good.read(), "yy");

    lab.b.log.clear();
    lab.pod("client1").dial("10.77.0.21:8080").write("x");
    await quiet();
    assert.deepEqual(errors(lab.b), [
      "tls handshake error: Custom { kind: InvalidData, error: InvalidCertificate(Revoked) }",
    ]);
    assert.deepEqual(rejected(lab.b), [0, 2]);
    await revoke(lab.b, link);
    // The pool waits a moment after a dial that failed.
    await lab.clock.advance(10);
    await echo(lab, "client1", "server1");
  });

  test(`a server whose ${what} is revoked is left, others are not, and nobody goes back`, async () => {
    const lab = guardedLab();
    const [bad, good] = [
      await echo(lab, "client1", "server1"),
      await echo(lab, "client1", "server2"),
    ];
    await revoke(lab.a, link, "server1");
    await lab.clock.advance(100);
    assert.equal(bad.readEnd, "reset");
    assert.deepEqual(errors(lab.a), [CUT_OFF]);
    good.write("y");
    await quiet();
    assert.equal(good.read(), "yy");

    lab.a.log.clear();
    lab.pod("client1").dial("10.77.0.21:8080").write("x");
    await quiet();
    assert.deepEqual(errors(lab.a), ["io error: invalid peer certificate: Revoked"]);
    assert.deepEqual(rejected(lab.a), [2, 0]);
  });
}

test("the metrics of a connection that is cut off say so", async () => {
  const lab = guardedLab();
  await echo(lab, "client1", "server1");
  await revoke(lab.b, 0, "client1");
  await lab.clock.advance(100);
  const flags = lab.b.traffic
    .collect()
    .series.flatMap(({ labels, failed }) => (failed > 0 ? labels : []));
  assert.ok(flags.includes("CERT_REVOKED"));
});

test("a request that waits for its answer when the server is revoked fails with that reason", async () => {
  const lab = guardedLab();
  await echo(lab, "client1", "server1");
  lab.network.delays.set("10.77.0.21", 1_000);
  const waiting = lab.pod("client1").dial("10.77.0.21:8081");
  await quiet();
  await revoke(lab.a, 0, "server1");
  await lab.clock.advance(2_000);
  assert.notEqual(waiting.readEnd, undefined);
  assert.deepEqual(errors(lab.a), [CUT_OFF, CUT_OFF]);
});

test("peers that can't be looked up are let in and counted", async () => {
  const lab = makeLab("info", { checkRevocation: true });
  await echo(lab, "client1", "server1");
  await dialPeer(
    lab,
    lab.pod("outside"),
    "10.77.0.21",
    memoryCertificate(real("client2").identity),
  );
  await quiet();
  assert.equal(lab.a.traffic.collect().revocations.source.untracked, 1);
  assert.equal(lab.b.traffic.collect().revocations.destination.untracked, 2);
});

test("a list that comes between the handshake and the watch is not missed", async () => {
  const traffic = new TrafficMetrics();
  const guard = new RevocationGuard(traffic);
  const [leaf, intermediate] = real("client1").chainPem as [string, string];
  const chain = chainDer([leaf, intermediate, ca.rootPem]);
  assert.ok(!guard.refuses("destination", chain));
  guard.update(parseRevocationLists(await buildCrl(ca.signer(intermediate), [leaf])));
  const ends: string[] = [];
  const end = ({ message }: Error): number => ends.push(message);
  const release = guard.watch({ reporter: "destination", chainDer: chain, end });
  guard.update(parseRevocationLists(await buildCrl(ca.signer(), [intermediate])));
  release();
  assert.deepEqual(ends, [CUT_OFF]);
  assert.equal(traffic.collect().revocations.destination.rejected, 1);
});

test("tunnels that are gone are judged no more", async () => {
  const lab = guardedLab();
  const socket = await echo(lab, "client1", "server1");
  socket.close();
  await quiet();
  await lab.proxy("client1").close();
  await quiet();
  await revoke(lab.a, 0, "server1");
  await revoke(lab.b, 0, "client1");
  assert.deepEqual(
    [rejected(lab.a), rejected(lab.b)],
    [
      [0, 0],
      [0, 0],
    ],
  );
});
