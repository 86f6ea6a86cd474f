/** Revocation lists in the hands of the daemon: read, changed, emptied. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Certificate } from "pkijs";
import type { SigningCertificate } from "../../src/embedded/certificate-builder.ts";
import { connectFrom, type LabServer, listenEcho } from "../support/lab-application.ts";
import { type MeshLab, waitUntil } from "../support/mesh-lab.ts";
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
} from "../support/two-nodes.ts";

const CHANGED_MS_MAX = 40_000;

describe("a daemon with CRL_PATH", { skip: requireNetns("iptables") }, () => {
  const directory = mkdtempSync(join(tmpdir(), "crl-"));
  const file = join(directory, "crl.pem");
  let lab: MeshLab;
  let server: LabServer;

  before(async () => {
    lab = await startTwoNodes({
      environment: { CRL_PATH: file, ZTUNNEL_WORKER_THREADS: "2" },
    });
    server = listenEcho(lab.host("server"), APP_PORT);
  });
  after(async () => {
    server?.close();
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
      assert.ok(
        judge.lines.some((line) => line.includes("nobody is revoked until they are there")),
      );
      const socket = await connectFrom(lab.host("client"), ADDRESS.server, APP_PORT);
      await pingPong(socket);
      const end = readingEnd(socket);
      const rejections = async (): Promise<number> =>
        sampleSum(await judge.metrics(), "istio_crl_policy_rejections_total", { reporter });

      const dump = JSON.parse(await lab.node(holder).get(15000, "/config_dump")) as Dump;
      const held = dump.certificates.find(({ identity }) => identity.endsWith(`/sa/${revoked}`));
      const leaf = Buffer.from(held?.certChain[0]?.pem ?? "", "base64").toString();
      writeFileSync(
        file,
        crlPem(await buildCrl(await signer(join(lab.folder, "authority")), [leaf])),
      );
      assert.equal(await end, "ECONNRESET");
      const terminated = await rejections();
      assert.ok(terminated >= 1, `${terminated}`);
      await assert.rejects(echoOnce(lab, "client", ADDRESS.server));
      assert.ok((await rejections()) > terminated, "the handshake was not counted");
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
      await waitUntil(
        () =>
          echoOnce(lab, "client", ADDRESS.server).then(
            () => true,
            () => false,
          ),
        "still revoked",
        CHANGED_MS_MAX,
      );
    });
  }
});

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
