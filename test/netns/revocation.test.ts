/** Revocation lists in the hands of the daemon: read, changed, emptied. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Certificate } from "pkijs";
import type { SigningCertificate } from "../../src/embedded/certificate-builder.ts";
import { type HboneServer, listenHbone } from "../support/hbone-server.ts";
import { connectFrom, type LabServer, listenEcho } from "../support/lab-application.ts";
import { behind, DOMAIN, workload } from "../support/mesh-entries.ts";
import type { MeshLab } from "../support/mesh-lab.ts";
import { sampleSum } from "../support/metrics-text.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { buildCrl, crlPem, derOf } from "../support/test-crl.ts";
import {
  ADDRESS,
  APP_PORT,
  echoOnce,
  pingPong,
  readingEnd,
  startTwoNodes,
  TWO_NODES_MESH,
} from "../support/two-nodes.ts";
import { waitUntil } from "../support/wait-until.ts";

const CHANGED_MS_MAX = 40_000;
/** A waypoint and two network gateways. */
const HOST = { wp: "10.66.0.51", near: "10.66.0.52", far: "10.66.0.53" } as const;
const BEHIND = "10.66.0.54";
const VIP = { near: "10.66.1.2", far: "10.66.1.3" } as const;

describe("a daemon with CRL_PATH", { skip: requireNetns("iptables") }, () => {
  const directory = mkdtempSync(join(tmpdir(), "crl-"));
  const file = join(directory, "crl.pem");
  let lab: MeshLab;
  let server: LabServer;
  const peers: HboneServer[] = [];

  before(async () => {
    lab = await startTwoNodes({
      environment: { CRL_PATH: file, ZTUNNEL_WORKER_THREADS: "2" },
    });
    server = listenEcho(lab.host("server"), APP_PORT);
    for (const [name, ip] of Object.entries(HOST)) lab.addHost(name, ip);
  });
  after(async () => {
    server?.close();
    for (const peer of peers) peer.close();
    await lab?.close();
    rmSync(directory, { recursive: true });
  });

  // Who is revoked, on whose node it is noticed, and as whose report.
  for (const [direction, revoked, holder, node, reporter] of [
    ["inbound", "client", "node-a", "node-b", "destination"],
    ["outbound", "server", "node-b", "node-a", "source"],
  ] as const) {
    test(`crl_${direction}_terminates_existing_connection_on_revocation, crl_${direction}_rejects_revoked_cert`, async () => {
      const judge = lab.node(node);
      await waitUntil(
        () => judge.lines.some((line) => line.includes("nobody is revoked until they are there")),
        "it does not say that it knows of no list",
      );
      const socket = await connectFrom(lab.host("client"), ADDRESS.server, APP_PORT);
      await pingPong(socket);
      const end = readingEnd(socket);
      const rejections = async (): Promise<number> =>
        sampleSum(await judge.metrics(), "istio_crl_policy_rejections_total", { reporter });

      await revoke(await leafOf(holder, revoked));
      assert.equal(await end, "ECONNRESET");
      await waitUntil(async () => (await rejections()) >= 1, "it was not counted");
      const terminated = await rejections();
      const isRejected = (): Promise<boolean> =>
        echoOnce(lab, "client", ADDRESS.server).then(
          () => false,
          () => true,
        );
      // Each data thread hears of it in its own time.
      await waitUntil(
        async () => (await isRejected()) && (await rejections()) > terminated,
        "a revoked one is let in, or its handshake is not counted",
      );
      await waitUntil(
        () => judge.lines.some((line) => line.includes("peer certificate revoked by CRL")),
        "the access log never said why",
        CHANGED_MS_MAX,
      );
      assert.ok(
        sampleSum(await judge.metrics(), "istio_tcp_connections_failed_total", {
          reporter,
          response_flags: "CERT_REVOKED",
        }) >= 1,
      );

      writeFileSync(file, "");
      await served(() => echoOnce(lab, "client", ADDRESS.server), "still revoked");
    });
  }

  test("a hop whose certificate is revoked, and who is beyond it, are named in the error", async () => {
    const waypoint = await listenHbone(lab, "wp", "wp", (stream) => stream.pipe(stream));
    const [near, far] = await Promise.all(
      ["near", "far"].map((name) =>
        listenHbone(lab, name, name, (stream) => {
          void connectFrom(lab.host(name), ADDRESS.server, 15008).then((socket) => {
            stream.pipe(socket);
            socket.pipe(stream);
            stream.once("close", () => socket.destroy());
          });
        }),
      ),
    );
    assert.ok(near !== undefined && far !== undefined);
    peers.push(waypoint, near, far);
    writeFileSync(`${lab.meshFile}.new`, withHops(TWO_NODES_MESH));
    renameSync(`${lab.meshFile}.new`, lab.meshFile);
    const targets = {
      [BEHIND]: "at waypoint default/wp",
      [VIP.near]: "at network gateway default/near",
      [VIP.far]: "beyond network gateway default/far",
    };
    const ends = [];
    for (const ip of Object.keys(targets)) {
      await served(() => echoOnce(lab, "client", ip), `nothing comes back from ${ip}`);
      const socket = await connectFrom(lab.host("client"), ip, APP_PORT);
      await pingPong(socket);
      ends.push(readingEnd(socket));
    }
    const leaf = await leafOf("node-b", "server");
    await revoke(waypoint.certificate.cert, near.certificate.cert, leaf);
    assert.deepEqual(await Promise.all(ends), ["ECONNRESET", "ECONNRESET", "ECONNRESET"]);
    for (const [ip, where] of Object.entries(targets)) {
      await assert.rejects(echoOnce(lab, "client", ip));
      for (const words of [
        "connection closed: peer certificate revoked by CRL",
        "io error: invalid peer certificate: Revoked",
      ]) {
        await waitUntil(
          () => lab.node("node-a").lines.some((line) => line.includes(`"${words}, ${where}"`)),
          `no line says "${words}, ${where}"`,
        );
      }
    }
  });

  async function revoke(...leaves: readonly string[]): Promise<void> {
    const list = await buildCrl(await signer(join(lab.folder, "authority")), leaves);
    writeFileSync(file, crlPem(list));
  }

  /** PEM of the certificate that the daemon has for a service account. */
  async function leafOf(node: string, account: string): Promise<string> {
    const dump = JSON.parse(await lab.node(node).get(15000, "/config_dump")) as Dump;
    const held = dump.certificates.find(({ identity }) => identity.endsWith(`/sa/${account}`));
    return Buffer.from(held?.certChain[0]?.pem ?? "", "base64").toString();
  }
});

/** Until it comes to pass. */
function served(call: () => Promise<void>, otherwise: string): Promise<void> {
  return waitUntil(
    () =>
      call().then(
        () => true,
        () => false,
      ),
    otherwise,
    CHANGED_MS_MAX,
  );
}

/** A pod behind a waypoint, and `server` once more behind each of two network gateways. */
function withHops(mesh: string): string {
  const names = ["near", "far"] as const;
  const beyond = names.map(
    (name) =>
      `  - {uid: lab/${name}/server, name: server, namespace: default, serviceAccount: server, ` +
      `trustDomain: cluster.local, workloadIps: [], protocol: HBONE, network: remote, ` +
      `networkGateway: {destination: "remote/${HOST[name]}", hboneMtlsPort: 15008}, ` +
      `services: {default/to-${name}.default.${DOMAIN}: {${APP_PORT}: ${APP_PORT}}}}\n`,
  );
  const gateways = names.map((name) => {
    const gateway = workload(name, HOST[name], "elsewhere", behind());
    return `  ${gateway.replace('network: ""', "network: remote")}\n`;
  });
  const services = names.map(
    (name) =>
      `  - {name: to-${name}, namespace: default, hostname: to-${name}.default.${DOMAIN}, vips: ["/${VIP[name]}"], ` +
      `ports: {${APP_PORT}: ${APP_PORT}}, subjectAltNames: ["spiffe://cluster.local/ns/default/sa/server"]}\n`,
  );
  const waypoint = `waypoint: {destination: "/${HOST.wp}", hboneMtlsPort: 15008}`;
  const near = [
    `  ${workload("wp", HOST.wp, "elsewhere", behind())}\n`,
    `  ${workload("behind", BEHIND, "elsewhere", `${behind()}, ${waypoint}`)}\n`,
  ];
  return mesh
    .replace("workloads:\n", (line) => [line, ...near, ...gateways, ...beyond].join(""))
    .replace("\nservices:\n", (line) => [line, ...services].join(""));
}

interface Dump {
  readonly certificates: readonly {
    readonly identity: string;
    readonly certChain: readonly { readonly pem: string }[];
  }[];
}

/** The lab's authority, to sign by hand with. */
async function signer(folder: string): Promise<SigningCertificate> {
  const pem = readFileSync(join(folder, "root-cert.pem"), "utf8");
  const key = derOf(readFileSync(join(folder, "root-key.pem"), "utf8"));
  const privateKey = await crypto.subtle.importKey(
    "pkcs8",
    new Uint8Array(key),
    { name: "ECDSA", namedCurve: "P-256" },
    true,
    ["sign"],
  );
  return { pem, certificate: Certificate.fromBER(new Uint8Array(derOf(pem)).buffer), privateKey };
}
