import assert from "node:assert/strict";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { connect, createServer, type TLSSocket } from "node:tls";
import {
  CsrError,
  EmbeddedAuthority,
  requestedUri,
} from "../../src/embedded/certificate-authority.ts";
import { formatSpiffeId } from "../../src/mesh/identity.ts";
import type { WorkloadCertificate } from "../../src/mesh/workload-certificate.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { createCertificateRequest } from "../../src/tls/csr.ts";
import { expired, notYetValid, testCa, testIdentity } from "../support/test-ca.ts";

const cart = testIdentity("cart", "shop");
const scratch = await mkdtemp(join(tmpdir(), "ztunnel-ca-"));
after(() => rm(scratch, { recursive: true, force: true }));

test("a leaf has the shape that istiod gives it", async () => {
  const authority = await EmbeddedAuthority.inMemory(systemClock);
  const { csrPem, privateKeyPem } = await createCertificateRequest(cart);
  const chain = await authority.sign(cart, csrPem, 3600);

  assert.equal(chain.length, 2);
  assert.equal(chain[1], authority.rootPem);
  const leaf = new X509Certificate(chain[0] as string);
  const root = new X509Certificate(authority.rootPem);
  assert.equal(leaf.subjectAltName, "URI:spiffe://cluster.local/ns/shop/sa/cart");
  // An empty subject comes after the validity and before the key; BoringSSL takes no other form.
  assert.match(leaf.raw.toString("hex"), /301e170d.{26}170d.{26}30003059/);
  assert.equal(leaf.issuer, "O=cluster.local");
  assert.equal(leaf.ca, false);
  assert.deepEqual(leaf.keyUsage, ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]);
  assert.ok(leaf.verify(root.publicKey) && leaf.checkIssued(root));
  assert.ok(root.ca && root.verify(root.publicKey));
  assert.ok(leaf.checkPrivateKey(createPrivateKey(privateKeyPem)));
  const now = systemClock.now();
  assert.ok(Math.abs(leaf.validFromDate.getTime() - (now - 120_000)) < 5000);
  assert.ok(Math.abs(leaf.validToDate.getTime() - (now + 3_600_000)) < 5000);
});

test("a request for no validity, or less, gets a day", async () => {
  const authority = await EmbeddedAuthority.inMemory(systemClock);
  const { csrPem } = await createCertificateRequest(cart);
  for (const seconds of [0, -1]) {
    const leaf = new X509Certificate((await authority.sign(cart, csrPem, seconds))[0] as string);
    const remaining = leaf.validToDate.getTime() - systemClock.now();
    assert.ok(Math.abs(remaining - 86_400_000) < 5000, `${seconds}: ${remaining}`);
  }
});

const refused: readonly (readonly [what: string, csr: (good: string) => string, reason: string])[] =
  [
    ["an empty request", () => "", "certificate signing request is not properly encoded"],
    ["no PEM", () => "garbage", "certificate signing request is not properly encoded"],
    [
      "another kind of PEM",
      (good) => good.replaceAll("CERTIFICATE REQUEST", "CERTIFICATE"),
      "certificate signing request is not properly encoded",
    ],
    ["a broken signature", breakSignature, "x509: ECDSA verification failure"],
    [
      "PEM of something else",
      () => "-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n",
      "failed to parse X.509 certificate signing request",
    ],
  ];
for (const [what, csr, reason] of refused) {
  test(`${what} is refused as istiod refuses it`, async () => {
    const authority = await EmbeddedAuthority.inMemory(systemClock);
    const { csrPem } = await createCertificateRequest(cart);
    await assert.rejects(authority.sign(cart, csr(csrPem)), (error) => {
      assert.ok(error instanceof CsrError);
      assert.equal(error.message, reason);
      return true;
    });
  });
}

test("more than 90 days are refused with both durations", async () => {
  const authority = await EmbeddedAuthority.inMemory(systemClock);
  const { csrPem } = await createCertificateRequest(cart);
  await assert.rejects(authority.sign(cart, csrPem, 7_776_001), {
    message: "requested TTL 2160h0m1s is greater than the max allowed TTL 2160h0m0s",
  });
  await authority.sign(cart, csrPem, 7_776_000);
});

test("a request's own SAN can be read", async () => {
  const { csrPem } = await createCertificateRequest(cart);
  assert.equal(requestedUri(csrPem), formatSpiffeId(cart));
});

test("the root is kept in its directory, the key for its owner alone", async () => {
  const directory = join(scratch, "kept");
  const first = await EmbeddedAuthority.open(systemClock, directory);
  const second = await EmbeddedAuthority.open(systemClock, directory);

  assert.equal(second.rootPem, first.rootPem);
  assert.equal(await readFile(join(directory, "root-cert.pem"), "utf8"), first.rootPem);
  assert.equal((await stat(join(directory, "root-key.pem"))).mode & 0o777, 0o600);
  assert.deepEqual((await readdir(directory)).sort(), ["root-cert.pem", "root-key.pem"]);
  const { csrPem } = await createCertificateRequest(cart);
  const leaf = new X509Certificate((await second.sign(cart, csrPem))[0] as string);
  assert.ok(leaf.verify(new X509Certificate(first.rootPem).publicKey));
});

test("a root without its key, or with another's, is an error that names the files", async () => {
  const directory = join(scratch, "half");
  await EmbeddedAuthority.open(systemClock, directory);
  const other = join(scratch, "other");
  await EmbeddedAuthority.open(systemClock, other);

  await writeFile(
    join(directory, "root-key.pem"),
    await readFile(join(other, "root-key.pem"), "utf8"),
  );
  await assert.rejects(EmbeddedAuthority.open(systemClock, directory), /root-key\.pem is not that/);
  await writeFile(join(directory, "root-key.pem"), "nonsense");
  await assert.rejects(
    EmbeddedAuthority.open(systemClock, directory),
    /root-key\.pem can't be read/,
  );
  await rm(join(directory, "root-key.pem"));
  await assert.rejects(EmbeddedAuthority.open(systemClock, directory), /root-cert\.pem has no key/);
});

test("the test authority's certificates pass or fail a mutual handshake as they should", async () => {
  const ca = await testCa();
  const other = await testCa();
  const server = await ca.certificate(testIdentity("server"));
  const client = testIdentity("client");
  const cases = {
    good: await ca.certificate(client),
    intermediate: await ca.certificate(client, { intermediate: true }),
    "no usage": await ca.certificate(client, { purposes: [] }),
    expired: await ca.certificate(client, expired()),
    "not yet valid": await ca.certificate(client, notYetValid()),
    "self-signed": await ca.certificate(client, { selfSigned: true }),
    "other root": await other.certificate(client, { trustedRootPem: ca.rootPem }),
    "server only": await ca.certificate(client, { purposes: ["server"] }),
  };
  const outcomes: Record<string, string> = {};
  for (const [name, certificate] of Object.entries(cases)) {
    outcomes[name] = await handshake(server, certificate);
  }
  assert.deepEqual(outcomes, {
    good: "authorized",
    intermediate: "authorized",
    "no usage": "authorized",
    expired: "CERT_HAS_EXPIRED",
    "not yet valid": "CERT_NOT_YET_VALID",
    "self-signed": "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
    "other root": "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
    "server only": "INVALID_PURPOSE",
  });
});

/** @returns what the server thinks of the client. */
async function handshake(
  server: WorkloadCertificate,
  client: WorkloadCertificate,
): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const listener = createServer(
    { ...tlsOptions(server), requestCert: true, rejectUnauthorized: false },
    (socket: TLSSocket) => {
      resolve(socket.authorized ? "authorized" : String(socket.authorizationError));
      socket.destroy();
    },
  );
  await new Promise<void>((listening) => listener.listen(0, "127.0.0.1", listening));
  const { port } = listener.address() as { port: number };
  const socket = connect({ ...tlsOptions(client), port, checkServerIdentity: () => undefined });
  // The server hangs up as soon as it has judged.
  socket.on("error", () => {});
  const outcome = await promise;
  socket.destroy();
  listener.close();
  return outcome;
}

function tlsOptions(certificate: WorkloadCertificate) {
  return {
    cert: certificate.chainPem.join(""),
    key: certificate.privateKeyPem,
    ca: [...certificate.rootsPem],
  };
}

function breakSignature(csrPem: string): string {
  const lines = csrPem.trimEnd().split("\n");
  const last = lines.length - 2;
  const line = lines[last] as string;
  const at = Math.max(0, line.length - 8);
  lines[last] = line.slice(0, at) + (line[at] === "A" ? "B" : "A") + line.slice(at + 1);
  return `${lines.join("\n")}\n`;
}
