/**
 * What a real istiod answered to requests for certificates, answered once more by a gRPC server: the
 * client's words, the chain checks and the wire on the way.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Server, ServerCredentials, type ServiceDefinition, status } from "@grpc/grpc-js";
import { CertificationRequest } from "pkijs";
import { EmbeddedAuthority } from "../../src/embedded/certificate-authority.ts";
import {
  buildCa,
  buildLeaf,
  generateKeyPair,
  type SigningCertificate,
} from "../../src/embedded/certificate-builder.ts";
import { certificateOrder } from "../../src/identity/certificate-order.ts";
import { IstioCaClient } from "../../src/identity/istio-ca-client.ts";
import { describeStatus } from "../../src/istiod/grpc-status.ts";
import { formatSpiffeId, type Identity, parseSpiffeId } from "../../src/mesh/identity.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { parseCertificateResponse } from "../../src/tls/certificate-chain.ts";
import { summarizeCertificate } from "../../src/tls/certificate-summary.ts";
import { createCertificateRequest } from "../../src/tls/csr.ts";
import {
  type CertificateRequest,
  type CertificateResponse,
  createCertificateMethod,
} from "../../src/wire/istio-ca.ts";
import { recordedBytes, recordedText } from "../support/istiod-recording.ts";
import { silentLogger } from "../support/silent-logger.ts";

interface RecordedCase {
  readonly case: string;
  readonly request: {
    readonly validityDuration?: string;
    readonly metadata?: { readonly ImpersonatedIdentity?: unknown };
  };
  readonly grpcStatus: keyof typeof status;
  readonly grpcMessage?: string;
  readonly pemBlocksPerElement?: readonly number[];
  readonly certs?: readonly (readonly RecordedCertificate[])[];
}

interface RecordedCertificate {
  readonly notBefore_minus_now_s: number;
  readonly notAfter_minus_now_s: number;
  readonly extensions: { readonly subjectAltName?: { readonly value: readonly string[] } };
}

const cases = ["ca", "ca-cacerts"].flatMap((folder) => {
  const all = JSON.parse(recordedText(`${folder}/cases.json`)) as RecordedCase[];
  return all.map((one) => ({ ...one, name: `${folder}/${one.case}` }));
});

/** The case that is answered now, and what was asked. */
let current: RecordedCase;
let asked: CertificateRequest;
let server: Server;
let rootPem: string;
let port: number;

before(async () => {
  const authority = await EmbeddedAuthority.inMemory(systemClock);
  const tls = await authority.issueServer([{ kind: "dns", hostname: "localhost" }]);
  rootPem = authority.rootPem;
  server = new Server();
  const service = { createCertificate: createCertificateMethod } satisfies ServiceDefinition;
  server.addService(service, {
    createCertificate(
      call: { request: CertificateRequest },
      callback: (error: object | null, response?: CertificateResponse) => void,
    ) {
      asked = call.request;
      if (current.grpcStatus !== "OK") {
        return callback({ code: status[current.grpcStatus], details: current.grpcMessage });
      }
      signAsRecorded(current, asked.csrPem).then(
        (certChain) => callback(null, { certChain }),
        (error: unknown) => callback({ code: status.INTERNAL, details: String(error) }),
      );
    },
  });
  port = await new Promise<number>((resolve, reject) =>
    server.bindAsync(
      "127.0.0.1:0",
      ServerCredentials.createSsl(null, [
        {
          cert_chain: Buffer.from(tls.certificatePem),
          private_key: Buffer.from(tls.privateKeyPem),
        },
      ]),
      (error, bound) => (error === null ? resolve(bound) : reject(error)),
    ),
  );
});
after(() => server.forceShutdown());

/** A chain of the recorded shape: elements, blocks, names and validity. */
async function signAsRecorded(recorded: RecordedCase, csrPem: string): Promise<string[]> {
  const blocks = recorded.pemBlocksPerElement ?? [];
  const [described] = recorded.certs?.[0] ?? [];
  assert.ok(described !== undefined);
  const now = systemClock.now();
  const validity = { notBeforeAt: now - 172_000, notAfterAt: now + 315_359_828_000 };
  const root = await buildCa(
    { organization: "cluster.local", ...validity },
    await generateKeyPair(),
  );
  const issuers: SigningCertificate[] = [];
  for (let i = blocks.length - 2; i >= 1; i--) {
    const content = { organization: `Intermediate ${i}`, ...validity };
    issuers.unshift(await buildCa(content, await generateKeyPair(), issuers[0] ?? root));
  }
  const der = Buffer.from(csrPem.replaceAll(/-----[^-]*-----/g, ""), "base64");
  const request = CertificationRequest.fromBER(new Uint8Array(der).buffer);
  const leaf = await buildLeaf(
    {
      publicKeyDer: new Uint8Array(request.subjectPublicKeyInfo.toSchema().toBER()),
      names: (described.extensions.subjectAltName?.value ?? []).map((uri) => ({
        kind: "uri",
        uri,
      })),
      purposes: ["server", "client"],
      notBeforeAt: now + described.notBefore_minus_now_s * 1000,
      notAfterAt: now + described.notAfter_minus_now_s * 1000,
    },
    issuers[0] ?? root,
  );
  const further: string[] = [];
  for (let i = 1; i < (blocks.at(-1) ?? 1); i++) {
    const content = { organization: `root ${i}`, ...validity };
    further.push((await buildCa(content, await generateKeyPair())).pem);
  }
  return [leaf, ...issuers.map(({ pem }) => pem), [root.pem, ...further].join("")];
}

function open(impersonate: boolean, validitySeconds: number) {
  const client = new IstioCaClient(
    { clock: systemClock, log: silentLogger },
    {
      address: `https://localhost:${port}`,
      roots: { kind: "pem", pem: rootPem },
      alternateHostname: undefined,
      token: undefined,
      clusterId: "Kubernetes",
      headers: [],
      validitySeconds,
      impersonate,
      answerMs: 30_000,
      tls: { tls12: false, postQuantumOnly: false },
    },
  );
  const order = certificateOrder(
    { authority: client, log: silentLogger },
    { checkIdentity: impersonate },
  );
  return { client, order };
}

for (const recorded of cases) {
  test(`${recorded.name} ends as istiod decided`, async () => {
    current = recorded;
    const uri = recorded.request.metadata?.ImpersonatedIdentity;
    const wanted = typeof uri === "string" ? parseSpiffeId(uri) : undefined;
    const identity =
      wanted ?? (parseSpiffeId("spiffe://cluster.local/ns/shop/sa/frontend") as Identity);
    const validitySeconds = Number(recorded.request.validityDuration ?? 0);
    const { client, order } = open(wanted !== undefined, validitySeconds);
    try {
      if (recorded.grpcStatus !== "OK") {
        const words = describeStatus(status[recorded.grpcStatus]);
        await assert.rejects(order(identity), {
          code: "signing",
          message: `signing gRPC error (${words}): ${recorded.grpcMessage}`,
        });
      } else {
        const certificate = await order(identity);
        const blocks = recorded.pemBlocksPerElement ?? [];
        const [san] = recorded.certs?.[0]?.[0]?.extensions.subjectAltName?.value ?? [];
        assert.equal(formatSpiffeId(certificate.identity), san);
        assert.equal(certificate.chainPem.length, blocks.length - 1);
        assert.equal(certificate.rootsPem.length, blocks.at(-1));
      }
      assert.equal(asked.validitySeconds, validitySeconds);
      assert.equal(asked.impersonatedIdentity, wanted === undefined ? undefined : uri);
    } finally {
      client.close();
    }
  });
}

test("in shared mode istiod's answer for somebody else is refused", async () => {
  const recorded = cases.find(({ name }) => name === "ca/impersonate-own");
  assert.ok(recorded !== undefined);
  current = recorded;
  const { client, order } = open(true, 60);
  const frontend = parseSpiffeId("spiffe://cluster.local/ns/shop/sa/frontend") as Identity;
  await assert.rejects(order(frontend), {
    code: "wrong-identity",
    message: "did not find expected SAN: spiffe://cluster.local/ns/shop/sa/frontend",
  });
  client.close();
});

const { privateKeyPem: FOREIGN_KEY } = await createCertificateRequest({
  trustDomain: "cluster.local",
  namespace: "shop",
  serviceAccount: "frontend",
});
const strict = { checkIdentity: true, warn: (message: string) => assert.fail(message) };
const wires = [
  { name: "ca/impersonate-local", account: "shop/sa/frontend", impersonated: true },
  { name: "ca/own-identity", account: "istio-system/sa/ztunnel", impersonated: false },
  { name: "ca-cacerts/impersonate-local", account: "shop/sa/frontend", impersonated: true },
] as const;
for (const { name, account, impersonated } of wires) {
  test(`the bytes of ${name} are read and written alike`, () => {
    const bytes = recordedBytes(`${name}-request.bin`);
    const request = createCertificateMethod.requestDeserialize(bytes);
    const uri = `spiffe://cluster.local/ns/${account}`;
    assert.equal(request.validitySeconds, 86_400);
    assert.equal(request.impersonatedIdentity, impersonated ? uri : undefined);
    assert.deepEqual(createCertificateMethod.requestSerialize(request), bytes);

    const answer = createCertificateMethod.responseDeserialize(
      recordedBytes(`${name}-response.bin`),
    );
    const identity = parseSpiffeId(uri) as Identity;
    // Everything about the chain is good; the key was the recorder's.
    assert.throws(() => parseCertificateResponse(answer.certChain, FOREIGN_KEY, identity, strict), {
      code: "bad-key",
      message: `the certificate for ${uri} is not for the requested key`,
    });
  });
}

for (const which of ["base", "full"] as const) {
  const folder = `real-ztunnel/${which}`;
  const dumped = (
    JSON.parse(recordedText(`${folder}/config_dump.json`)) as {
      certificates: { identity: string; certChain: unknown[]; rootCerts: unknown[] }[];
    }
  ).certificates;

  test(`both directions of the original's talk with the authority are read and written alike (${which})`, () => {
    const identities: string[] = [];
    for (const number of ["007", "009", "011", "013"]) {
      const bytes = recordedBytes(`${folder}/wire/${number}-client-CreateCertificate.bin`);
      const request = createCertificateMethod.requestDeserialize(bytes);
      assert.deepEqual(createCertificateMethod.requestSerialize(request), bytes);
      assert.equal(request.validitySeconds, 86_400);
      const uri = request.impersonatedIdentity ?? "";
      identities.push(uri);

      const following = String(Number(number) + 1).padStart(3, "0");
      const answer = recordedBytes(`${folder}/wire/${following}-server-CreateCertificate.bin`);
      const response = createCertificateMethod.responseDeserialize(answer);
      assert.deepEqual(createCertificateMethod.responseSerialize(response), answer);
      const [leaf = "", ...roots] = response.certChain;
      // Shown to operators as the original showed the same certificate.
      const shown = dumped.find(({ identity }) => identity === uri);
      assert.deepEqual(
        { certChain: [summarizeCertificate(leaf)], rootCerts: roots.map(summarizeCertificate) },
        { certChain: shown?.certChain, rootCerts: shown?.rootCerts },
      );
      const identity = parseSpiffeId(uri) as Identity;
      assert.throws(
        () => parseCertificateResponse(response.certChain, FOREIGN_KEY, identity, strict),
        { code: "bad-key" },
      );
    }
    assert.deepEqual(identities.sort(), dumped.map(({ identity }) => identity).sort());
  });
}
