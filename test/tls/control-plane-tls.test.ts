import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { connect, createServer } from "node:tls";
import {
  type ControlPlaneTlsOptions,
  checkServerNames,
  controlPlaneContext,
  readTrustedRoots,
} from "../../src/tls/control-plane-tls.ts";
import { dnsName, testCa, testIdentity } from "../support/test-ca.ts";

const ca = await testCa();
const istiod = await ca.certificate(testIdentity("istiod", "istio-system"), {
  names: [dnsName("localhost")],
});
const scratch = await mkdtemp(join(tmpdir(), "ztunnel-roots-"));
after(() => rm(scratch, { recursive: true, force: true }));

test("roots come from a file, from text, or from the system", async () => {
  const path = join(scratch, "roots.pem");
  await writeFile(path, ca.rootPem);
  assert.equal(await readTrustedRoots({ kind: "file", path }), ca.rootPem);
  assert.equal(await readTrustedRoots({ kind: "pem", pem: ca.rootPem }), ca.rootPem);
  assert.equal(typeof (await readTrustedRoots({ kind: "system" })), "string");
});

test("roots that are missing, or are none, are errors that name their place", async () => {
  const path = join(scratch, "none.pem");
  await assert.rejects(readTrustedRoots({ kind: "file", path }), {
    code: "bad-roots",
    message: `can't read root certificates from ${path}`,
  });
  await writeFile(path, "no certificate");
  await assert.rejects(readTrustedRoots({ kind: "file", path }), {
    code: "bad-roots",
    message: `no root certificate in ${path}`,
  });
  await assert.rejects(readTrustedRoots({ kind: "pem", pem: "./no/such/file" }), {
    code: "bad-roots",
    message: "no root certificate in the configured text, which is no existing file either",
  });
});

const plain: ControlPlaneTlsOptions = { tls12: false, postQuantumOnly: false };
const handshakes: readonly (readonly [
  what: string,
  server: { maxVersion?: "TLSv1.2"; ecdhCurve?: string },
  options: ControlPlaneTlsOptions,
  outcome: string,
])[] = [
  ["TLS 1.3 is spoken", {}, plain, "TLSv1.3"],
  ["TLS 1.2 is not", { maxVersion: "TLSv1.2" }, plain, "refused"],
  [
    "TLS 1.2 is where it is allowed",
    { maxVersion: "TLSv1.2" },
    { ...plain, tls12: true },
    "TLSv1.2",
  ],
  [
    "a post-quantum key exchange is spoken alone",
    {},
    { ...plain, postQuantumOnly: true },
    "TLSv1.3",
  ],
  [
    "a classic key exchange is not where post-quantum is asked for",
    { ecdhCurve: "X25519" },
    { ...plain, postQuantumOnly: true },
    "refused",
  ],
];
for (const [what, server, options, outcome] of handshakes) {
  test(`${what} with a control plane`, async () => {
    assert.equal(await handshake(server, options), outcome);
  });
}

async function handshake(
  serverOptions: { maxVersion?: "TLSv1.2"; ecdhCurve?: string },
  options: ControlPlaneTlsOptions,
): Promise<string> {
  const server = createServer({
    cert: istiod.chainPem.join(""),
    key: istiod.privateKeyPem,
    ...serverOptions,
  });
  // A refused handshake is what some cases are about; the client tells.
  server.on("tlsClientError", () => {});
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const { port } = server.address() as { port: number };
  const socket = connect({
    host: "127.0.0.1",
    port,
    servername: "localhost",
    secureContext: controlPlaneContext(ca.rootPem, options),
    checkServerIdentity: (_name, certificate) => checkServerNames(["x", "localhost"], certificate),
  });
  const outcome = await new Promise<string>((resolve) => {
    socket.on("secureConnect", () => resolve(socket.getProtocol() ?? ""));
    socket.on("error", () => resolve("refused"));
  });
  socket.destroy();
  server.close();
  return outcome;
}
