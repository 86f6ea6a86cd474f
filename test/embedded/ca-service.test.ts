import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { ChannelCredentials, Client, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { CaService } from "../../src/embedded/ca-service.ts";
import { CallerCheck, type CallerTokens } from "../../src/embedded/caller-check.ts";
import { EmbeddedAuthority } from "../../src/embedded/certificate-authority.ts";
import {
  ControlPlaneServer,
  type ControlPlaneServerOptions,
} from "../../src/embedded/control-plane-server.ts";
import { type EmbeddedMeshOptions, runEmbeddedMesh } from "../../src/embedded/embedded-mesh.ts";
import { MeshSnapshot } from "../../src/embedded/mesh-snapshot.ts";
import { certificateOrder } from "../../src/identity/certificate-order.ts";
import { IdentityError } from "../../src/identity/identity-error.ts";
import { IstioCaClient, type IstioCaClientOptions } from "../../src/identity/istio-ca-client.ts";
import { type Identity, sameIdentity } from "../../src/mesh/identity.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import type { Logger } from "../../src/telemetry/logger.ts";
import { createCertificateRequest } from "../../src/tls/csr.ts";
import { ADDRESS_TYPE } from "../../src/wire/delta-discovery.ts";
import { createCertificateMethod } from "../../src/wire/istio-ca.ts";
import { recordedScenario, recordedText } from "../support/istiod-recording.ts";
import { silentLogger } from "../support/silent-logger.ts";
import { testIdentity } from "../support/test-ca.ts";

const cart = testIdentity("cart", "shop");
const pay = testIdentity("pay", "shop");
const scratch = await mkdtemp(join(tmpdir(), "ztunnel-ca-server-"));
const cleanUps: (() => void)[] = [];
after(async () => {
  for (const cleanUp of cleanUps) cleanUp();
  await rm(scratch, { recursive: true, force: true });
});
const authority = await EmbeddedAuthority.inMemory(systemClock);
const tokenFile = join(scratch, "token");
await writeFile(tokenFile, "s3cret\n");

async function serve(
  options: Partial<ControlPlaneServerOptions & CallerTokens> = {},
  by = authority,
): Promise<ControlPlaneServer> {
  const callers = new CallerCheck({
    tokenFile: undefined,
    nodeTokenFiles: new Map(),
    clusterId: "Kubernetes",
    ...options,
  });
  // `cart` runs on node-a.
  const hasIdentity = (identity: Identity, node = "node-a"): boolean =>
    sameIdentity(identity, cart) && node === "node-a";
  const server = await ControlPlaneServer.start(
    {
      authority: by,
      services: [new CaService({ authority: by, callers, hasIdentity, report() {} })],
    },
    { listen: "127.0.0.1:0", names: [], ...options },
  );
  cleanUps.push(() => server.close());
  return server;
}

function client(
  port: number,
  options: Partial<IstioCaClientOptions> = {},
  log: Logger = silentLogger,
): IstioCaClient {
  const made = new IstioCaClient(
    { clock: systemClock, log },
    {
      address: `https://127.0.0.1:${port}`,
      roots: { kind: "pem", pem: authority.rootPem },
      alternateHostname: undefined,
      token: undefined,
      clusterId: "Kubernetes",
      headers: [],
      validitySeconds: 3600,
      impersonate: true,
      answerMs: 30_000,
      tls: { tls12: false, postQuantumOnly: false },
      ...options,
    },
  );
  cleanUps.push(() => made.close());
  return made;
}

const plain = await serve();
const guarded = await serve({ tokenFile });
const { csrPem } = await createCertificateRequest(cart);

function signingError(message: string | RegExp, code = "signing") {
  return (error: unknown) => {
    assert.ok(error instanceof IdentityError, String(error));
    assert.equal(error.code, code);
    if (typeof message === "string") assert.equal(error.message, message);
    else assert.match(error.message, message);
    return true;
  };
}

const UNAUTHENTICATED =
  "signing gRPC error (The request does not have valid authentication credentials)";

test("a certificate comes over the wire and fits the request", async () => {
  const order = certificateOrder(
    { authority: client(plain.port), log: silentLogger },
    { checkIdentity: true },
  );
  const certificate = await order(cart);
  assert.deepEqual(certificate.identity, cart);
  assert.deepEqual(certificate.rootsPem, [authority.rootPem]);
  assert.ok(Math.abs(certificate.notAfterAt - systemClock.now() - 3_600_000) < 60_000);
  const leaf = new X509Certificate(certificate.chainPem[0] as string);
  assert.equal(leaf.subjectAltName, "URI:spiffe://cluster.local/ns/shop/sa/cart");
});

test("an identity of no workload is refused in istiod's words", async () => {
  await assert.rejects(
    client(plain.port).sign(pay, csrPem),
    signingError(`${UNAUTHENTICATED}: request impersonation authentication failure`),
  );
});

test("in dedicated mode a caller gets the identity of its request", async () => {
  const own = client(plain.port, { impersonate: false });
  const [leaf] = await own.sign(cart, csrPem);
  assert.equal(
    new X509Certificate(leaf as string).subjectAltName,
    "URI:spiffe://cluster.local/ns/shop/sa/cart",
  );
  const other = await createCertificateRequest(pay);
  await assert.rejects(
    own.sign(pay, other.csrPem),
    signingError(`${UNAUTHENTICATED}: request impersonation authentication failure`),
  );
});

const INVALID = "signing gRPC error (Client specified an invalid argument): CSR signing error";
const refusals: readonly (readonly [
  what: string,
  csr: string,
  validitySeconds: number,
  message: string,
])[] = [
  ["an empty CSR", "", 60, `${INVALID} (certificate signing request is not properly encoded)`],
  [
    "a CSR that is no PEM",
    "x",
    60,
    `${INVALID} (certificate signing request is not properly encoded)`,
  ],
  [
    "ten years",
    csrPem,
    315_360_000,
    `${INVALID} (requested TTL 87600h0m0s is greater than the max allowed TTL 2160h0m0s)`,
  ],
];
for (const [what, csr, validitySeconds, message] of refusals) {
  test(`${what} is refused in istiod's words`, async () => {
    await assert.rejects(
      client(plain.port, { validitySeconds }).sign(cart, csr),
      signingError(message),
    );
  });
}

test("where a token is asked for, only the right one and the right cluster get in", async () => {
  const token = { kind: "file", path: tokenFile } as const;
  await client(guarded.port, { token }).sign(cart, csrPem);
  await client(guarded.port, { token: { kind: "literal", token: "s3cret" } }).sign(cart, csrPem);
  const wrong: readonly Partial<IstioCaClientOptions>[] = [
    {},
    { token: { kind: "literal", token: "s3creT" } },
    { token, clusterId: "elsewhere" },
    { headers: [["clusterid", "Kubernetes"]] },
  ];
  for (const options of wrong) {
    await assert.rejects(
      client(guarded.port, options).sign(cart, csrPem),
      signingError(`${UNAUTHENTICATED}: request authenticate failure`),
    );
  }
});

test("extra headers go along, and ours win", async () => {
  const headers = [
    ["authorization", "Bearer wrong"],
    ["clusterid", "wrong"],
  ] as const;
  const token = { kind: "file", path: tokenFile } as const;
  await client(guarded.port, { token, headers }).sign(cart, csrPem);
  await client(guarded.port, {
    headers: [
      ["authorization", "Bearer wrong"],
      ["authorization", "Bearer s3cret"],
      ["clusterid", "Kubernetes"],
    ],
  }).sign(cart, csrPem);
});

test("the token is read anew for each call; a missing or empty one fails it", async () => {
  const path = join(scratch, "rotating");
  const rotating = client(guarded.port, { token: { kind: "file", path } });
  await assert.rejects(rotating.sign(cart, csrPem), {
    code: "token",
    message: `can't read the token in ${path}`,
  });
  await writeFile(path, " \n");
  await assert.rejects(rotating.sign(cart, csrPem), {
    code: "token",
    message: `the token in ${path} is empty`,
  });
  await writeFile(path, "s3cret\n");
  await rotating.sign(cart, csrPem);
});

test("a server by another name is refused, unless that name is the alternate", async () => {
  const server = await serve({ names: ["ca.example"], listen: "0.0.0.0:0" });
  const address = `https://127.0.0.2:${server.port}`;
  for (const alternateHostname of [undefined, "other.example"]) {
    await assert.rejects(
      client(0, { address, alternateHostname }).sign(cart, csrPem),
      signingError(
        /^signing gRPC error \(The service is currently unavailable\): .*127\.0\.0\.2 is not in the cert's list/,
        "unreachable",
      ),
    );
  }
  await client(0, { address, alternateHostname: "ca.example" }).sign(cart, csrPem);
  await client(0, { address: `https://localhost:${server.port}` }).sign(cart, csrPem);
});

test("a server of another authority is refused", async () => {
  const other = await EmbeddedAuthority.inMemory(systemClock);
  const server = await serve({}, other);
  await assert.rejects(
    client(server.port).sign(cart, csrPem),
    signingError(/unavailable\): .*(self-signed certificate|unable to verify.*)$/, "unreachable"),
  );
});

test("an authority that does not answer in time is given up", async (t) => {
  const mute = await ControlPlaneServer.start(
    {
      authority,
      services: [
        {
          definition: { createCertificate: createCertificateMethod },
          implementation: { createCertificate: () => undefined },
        },
      ],
    },
    { listen: "127.0.0.1:0", names: [] },
  );
  cleanUps.push(() => mute.close());
  const held: Socket[] = [];
  const deaf = createServer((socket) => held.push(socket));
  deaf.listen(0, "127.0.0.1");
  await once(deaf, "listening");
  t.after(() => {
    deaf.close();
    for (const socket of held) socket.destroy();
  });
  for (const port of [mute.port, (deaf.address() as AddressInfo).port]) {
    await assert.rejects(
      client(port, { answerMs: 300 }).sign(cart, csrPem),
      signingError(
        /^signing gRPC error \(Deadline expired before operation could complete\): ./,
        "unreachable",
      ),
    );
  }
});

test("roots in a file may appear late, change, and break", async () => {
  const path = join(scratch, "roots.pem");
  const warnings: string[] = [];
  const log: Logger = { ...silentLogger, write: (_level, message) => warnings.push(message) };
  const careful = client(plain.port, { roots: { kind: "file", path } }, log);
  await assert.rejects(careful.sign(cart, csrPem), { code: "bad-roots" });

  const other = await EmbeddedAuthority.inMemory(systemClock);
  await writeFile(path, other.rootPem);
  await assert.rejects(careful.sign(cart, csrPem), signingError(/unavailable/, "unreachable"));
  await writeFile(path, other.rootPem + authority.rootPem);
  await careful.sign(cart, csrPem);

  await writeFile(path, "");
  await careful.sign(cart, csrPem);
  assert.deepEqual(warnings, [
    `keeping the former roots of the certificate authority: no root certificate in ${path}`,
  ]);
});

test("an authority that is away is an error, and no concern once it is back", async () => {
  const server = await serve();
  const { port } = server;
  const patient = client(port);
  await patient.sign(cart, csrPem);
  server.close();
  await assert.rejects(patient.sign(cart, csrPem), signingError(/unavailable/, "unreachable"));
  await serve({ listen: `127.0.0.1:${port}` });
  const { promise, resolve } = Promise.withResolvers<void>();
  const retry = (): void => {
    patient.sign(cart, csrPem).then(
      () => resolve(),
      () => systemClock.after(50, retry, true),
    );
  };
  retry();
  await promise;
});

const MESH = `
workloads:
- name: cart-1
  namespace: shop
  serviceAccount: cart
  trustDomain: cluster.local
  uid: cluster//v1/Pod/shop/cart-1
  workloadIps: ["10.0.0.1"]
  protocol: HBONE
  node: local
  network: ""
  services: {}
`;

test("the embedded mesh signs for the workloads of its file, also for late ones", async () => {
  const file = join(scratch, "mesh.yaml");
  const stateDir = join(scratch, "state");
  await writeFile(file, MESH);
  const lines: string[] = [];
  let reported = Promise.withResolvers<string>();
  const abort = new AbortController();
  const options: EmbeddedMeshOptions = {
    file,
    listen: "127.0.0.1:0",
    stateDir,
    signal: abort.signal,
    report(line) {
      lines.push(line);
      reported.resolve(line);
      reported = Promise.withResolvers();
    },
  };
  const running = runEmbeddedMesh(options);
  const [, address, path] = /CA_ADDRESS=(\S+) CA_ROOT_CA=(\S+)/.exec(await reported.promise) ?? [];
  assert.equal(path, join(stateDir, "root-cert.pem"));
  const roots = { kind: "file", path: path as string } as const;
  const caller = client(0, { address: address as string, roots });

  const said = async (text: string): Promise<void> => {
    while (!lines.some((line) => line.includes(text))) await reported.promise;
  };
  await caller.sign(cart, csrPem);
  await assert.rejects(caller.sign(pay, csrPem), signingError(/impersonation/));
  await writeFile(file, `${MESH}  broken`);
  await said(`keeping the former mesh: ${file}:`);
  await caller.sign(cart, csrPem);
  await writeFile(file, MESH.replace("serviceAccount: cart", "serviceAccount: pay"));
  await said("the mesh has changed: 1 workload or service, 0 policies, 1 identity");
  await caller.sign(pay, csrPem);
  await assert.rejects(caller.sign(cart, csrPem), signingError(/impersonation/));
  abort.abort();
  await running;

  assert.match(lines[0] as string, /^mesh of 1 workload or service, 0 policies, 1 identity: /);
  assert.ok(lines.includes("signed a certificate for spiffe://cluster.local/ns/shop/sa/cart"));
});

test("who has the token of a node gets the identities of its workloads and no others", async () => {
  const nodeTokenFiles = new Map([
    ["node-a", join(scratch, "node-a")],
    ["node-b", join(scratch, "node-b")],
    ["node-c", join(scratch, "not-yet")],
  ]);
  await writeFile(join(scratch, "node-a"), "token-a\n");
  await writeFile(join(scratch, "node-b"), "token-b\n");
  const { port } = await serve({ nodeTokenFiles, tokenFile });
  const by = (token: string): IstioCaClient => client(port, { token: { kind: "literal", token } });
  await by("token-a").sign(cart, csrPem);
  await by("s3cret").sign(cart, csrPem);
  await assert.rejects(
    by("token-b").sign(cart, csrPem),
    signingError(`${UNAUTHENTICATED}: request impersonation authentication failure`),
  );
  await assert.rejects(
    by("token-c").sign(cart, csrPem),
    signingError(`${UNAUTHENTICATED}: request authenticate failure`),
  );
});

test("who names no cluster may not impersonate", async () => {
  const headers = [["authorization", "Bearer s3cret"]] as const;
  await assert.rejects(
    client(guarded.port, { headers }).sign(cart, csrPem),
    signingError(`${UNAUTHENTICATED}: request impersonation authentication failure`),
  );
  await client(guarded.port, { headers, impersonate: false }).sign(cart, csrPem);
});

interface RecordedCall {
  readonly case: string;
  readonly what: string;
  readonly caller: string;
  readonly clusteridHeader: string | null;
  readonly request: {
    readonly validityDuration?: string;
    readonly metadata?: { readonly ImpersonatedIdentity: unknown };
  };
  readonly grpcStatus: keyof typeof status;
  readonly grpcMessage?: string;
}

/**
 * Not ours to tell: what Kubernetes knows of pods and service accounts; CSRs that other tests make;
 * a caller's own identity, which is that of its request here. And a foreign trust domain: istiod
 * signs it, although no workload has such an identity.
 */
const NOT_OURS =
  /^pod-|^caller-pod|pod-bound|untrusted-sa|trusted-node|^own-|-own$|empty-string|wrong-type|foreign-td|^csr-(?!empty|garbage|no-newline)/;
const CALLER_TOKENS: readonly (readonly [caller: RegExp, token: string | undefined])[] = [
  [/^ztunnel-node1 /, "token-1"],
  [/^ztunnel-node2/, "token-2"],
  [/^none/, undefined],
  [/^garbage|audience/, "garbage"],
];

describe("a call is answered as istiod answered it:", () => {
  const calls = JSON.parse(recordedText("ca/cases.json")) as readonly RecordedCall[];
  const addresses = new Map<string, Uint8Array>();
  for (const message of recordedScenario("62").messages) {
    if (message.from === "client" || message.response.typeUrl !== ADDRESS_TYPE) continue;
    for (const { name, resource } of message.response.resources) {
      addresses.set(name, resource?.value ?? new Uint8Array());
    }
  }
  const snapshot = new MeshSnapshot(addresses, new Map());
  let channel: Client;

  before(async () => {
    const nodeTokenFiles = new Map<string, string>();
    for (const number of [1, 2]) {
      const file = join(scratch, `token-of-node${number}`);
      await writeFile(file, `token-${number}`);
      nodeTokenFiles.set(`node${number}`, file);
    }
    const callers = new CallerCheck({
      tokenFile: undefined,
      nodeTokenFiles,
      clusterId: "Kubernetes",
    });
    const ca = new CaService({
      authority,
      callers,
      hasIdentity: (identity, node) => snapshot.hasIdentity(identity, node),
      report() {},
    });
    const server = await ControlPlaneServer.start(
      { authority, services: [ca] },
      { listen: "127.0.0.1:0", names: [] },
    );
    const credentials = ChannelCredentials.createSsl(Buffer.from(authority.rootPem));
    channel = new Client(`localhost:${server.port}`, credentials);
    cleanUps.push(() => {
      channel.close();
      server.close();
    });
  });

  const ours = calls.filter((call) => !NOT_OURS.test(call.case));
  assert(ours.length > 15, `${ours.length} calls`);
  for (const recorded of ours) {
    test(`${recorded.case}, ${recorded.what}`, async () => {
      const metadata = new Metadata();
      const token = CALLER_TOKENS.find(([caller]) => caller.test(recorded.caller))?.[1];
      if (token !== undefined) metadata.set("authorization", `Bearer ${token}`);
      if (recorded.clusteridHeader !== null) metadata.set("clusterid", recorded.clusteridHeader);
      const csr = { "csr-empty": "", "csr-garbage": "garbage" }[recorded.case] ?? csrPem;
      const asked = recorded.request.metadata?.ImpersonatedIdentity;
      const error = await new Promise<ServiceError | null>((resolve) => {
        channel.makeUnaryRequest(
          createCertificateMethod.path,
          createCertificateMethod.requestSerialize,
          createCertificateMethod.responseDeserialize,
          {
            csrPem: csr,
            validitySeconds: Number(recorded.request.validityDuration ?? 0),
            impersonatedIdentity: typeof asked === "string" ? asked : undefined,
          },
          metadata,
          resolve,
        );
      });
      assert.deepEqual(
        [error?.code ?? status.OK, error?.details],
        [status[recorded.grpcStatus], recorded.grpcMessage],
      );
    });
  }
});
