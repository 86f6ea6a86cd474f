/** Whom an engine trusts, as client and as server, and what it says of others. */
import assert from "node:assert/strict";
import { it } from "node:test";
import type { TlsOptions } from "../../src/engine/engine.ts";
import type { WorkloadCertificate } from "../../src/mesh/workload-certificate.ts";
import { expired, notYetValid, type TestCa, testCa, testIdentity } from "../support/test-ca.ts";
import { TunnelLab, tlsOptions } from "./engine-lab.ts";
import type { WithLab } from "./tunnel-exchange.ts";

/** Certificates that a peer must not get through with, and the words for them on our side. */
const BAD_CERTIFICATES: Readonly<
  Record<string, { make(ca: TestCa, other: TestCa): Promise<WorkloadCertificate>; word: string }>
> = {
  expired: {
    make: (ca) => ca.certificate(testIdentity("peer"), expired()),
    word: "Expired",
  },
  "not yet valid": {
    make: (ca) => ca.certificate(testIdentity("peer"), notYetValid()),
    word: "NotValidYet",
  },
  "signed by nobody known": {
    make: (ca) => ca.certificate(testIdentity("peer"), { selfSigned: true }),
    word: "UnknownIssuer",
  },
  "signed by another authority": {
    make: (ca, other) => other.certificate(testIdentity("peer"), { trustedRootPem: ca.rootPem }),
    word: "UnknownIssuer",
  },
};

export function certificates(withLab: WithLab): void {
  for (const [title, { make, word }] of Object.entries(BAD_CERTIFICATES)) {
    it(`refuses a client whose certificate is ${title}`, () =>
      withLab(async (lab) => {
        const certificate = await make(lab.ca, await testCa());
        await refusedByServer(lab, certificate, {
          code: "handshake",
          message: `Custom { kind: InvalidData, error: InvalidCertificate(${word}) }`,
        });
      }));

    it(`refuses a server whose certificate is ${title}`, () =>
      withLab(async (lab) => {
        const certificate = await make(lab.ca, await testCa());
        await refusedByClient(lab, tlsOptions(certificate), undefined, {
          code: "handshake",
          message: `invalid peer certificate: ${word}`,
        });
      }));
  }

  it("refuses a client certificate that is for servers only, and the reverse", () =>
    withLab(async (lab) => {
      const serverOnly = await lab.ca.certificate(testIdentity("peer"), { purposes: ["server"] });
      const clientOnly = await lab.ca.certificate(testIdentity("peer"), { purposes: ["client"] });
      await refusedByServer(lab, serverOnly, {
        code: "handshake",
        message: "Custom { kind: InvalidData, error: InvalidCertificate(InvalidPurpose) }",
      });
      await refusedByClient(lab, tlsOptions(clientOnly), undefined, {
        code: "handshake",
        message: "invalid peer certificate: InvalidPurpose",
      });
    }));

  it("takes certificates without a purpose and through an intermediate", () =>
    withLab(async (lab) => {
      lab.requested = (request) => request.refuse(503);
      for (const overrides of [{ purposes: [] }, { intermediate: true }]) {
        const certificate = await lab.ca.certificate(testIdentity("peer"), overrides);
        const tunnel = await lab.dial({ tls: tlsOptions(certificate) });
        assert.equal((await tunnel.open("10.0.0.1:80", [])).status, 503);
      }
    }));

  it("shows each side the leaf of the other", () =>
    withLab(async (lab) => {
      lab.requested = (request) => request.refuse(503);
      const certificate = await lab.ca.certificate(testIdentity("client"));
      let serverLeaf: Uint8Array | undefined;
      const tunnel = await lab.dial({
        tls: tlsOptions(certificate, (chain) => {
          serverLeaf = chain.leafDer;
          return undefined;
        }),
      });
      await tunnel.open("10.0.0.1:80", []);
      assert.deepEqual(pem(lab.accepted[0]?.peer?.leafDer), certificate.chainPem[0]?.trim());
      assert.match(pem(serverLeaf), /BEGIN CERTIFICATE/);
    }));

  it("refuses a client of the wrong identity before any request", () =>
    withLab(
      async (lab) => {
        const certificate = await lab.ca.certificate(testIdentity("client", "default", "foreign"));
        await refusedByServer(lab, certificate, {
          code: "peer-identity",
          message: "not one of us",
        });
      },
      { verifyPeer: () => "not one of us" },
    ));

  it("refuses a server of the wrong identity before any request", () =>
    withLab(async (lab) => {
      const certificate = await lab.ca.certificate(testIdentity("server"));
      await refusedByClient(lab, tlsOptions(certificate), () => "not the one", {
        code: "peer-identity",
        message: "not the one",
      });
    }));

  it("refuses a client whose chain is revoked before it asks who the client is", () => {
    const asked: string[] = [];
    return withLab(
      async (lab) => {
        const certificate = await lab.ca.certificate(testIdentity("client"));
        await refusedByServer(lab, certificate, {
          code: "handshake",
          message: "Custom { kind: InvalidData, error: InvalidCertificate(Revoked) }",
        });
        assert.deepEqual(asked, ["revoked?"]);
      },
      {
        verifyPeer: () => {
          asked.push("who?");
          return undefined;
        },
        isRevoked: () => {
          asked.push("revoked?");
          return true;
        },
      },
    );
  });

  it("refuses a server whose chain is revoked", () =>
    withLab(async (lab) => {
      const certificate = await lab.ca.certificate(testIdentity("server"));
      await refusedByClient(
        lab,
        tlsOptions(certificate),
        undefined,
        { code: "handshake", message: "invalid peer certificate: Revoked" },
        () => true,
      );
    }));

  it("shows each side the chain of the other up to the trusted root", () => {
    const shownToServer: Uint8Array[] = [];
    return withLab(
      async (lab) => {
        lab.requested = (request) => request.refuse(503);
        const certificate = await lab.ca.certificate(testIdentity("client"), {
          intermediate: true,
        });
        let serverChain: Uint8Array = new Uint8Array();
        const tls = tlsOptions(certificate, undefined, (chain) => {
          serverChain = chain;
          return false;
        });
        const tunnel = await lab.dial({ tls });
        assert.equal((await tunnel.open("10.0.0.1:80", [])).status, 503);
        assert.deepEqual(
          Buffer.from(shownToServer[0] ?? []),
          Buffer.concat([...certificate.chainPem, ...certificate.rootsPem].map(derOf)),
        );
        assert.ok(Buffer.from(serverChain).includes(derOf(certificate.rootsPem[0] ?? "")));
      },
      {
        isRevoked: (chain) => {
          shownToServer.push(chain);
          return false;
        },
      },
    );
  });

  it("judges by the roots that come with the certificate and no others", () =>
    withLab(async (lab) => {
      const certificate = { ...(await lab.ca.certificate(testIdentity("client"))), rootsPem: [] };
      await assert.rejects(lab.dial({ tls: tlsOptions(certificate) }), {
        code: "handshake",
        message: "invalid peer certificate: UnknownIssuer",
      });
    }));

  it("agrees on a post-quantum key exchange alone", () =>
    withLab(async (lab) => {
      lab.requested = (request) => request.refuse(503);
      const certificate = await lab.ca.certificate(testIdentity("client"));
      const tunnel = await lab.dial({ tls: { ...tlsOptions(certificate), postQuantumOnly: true } });
      assert.equal((await tunnel.open("10.0.0.1:80", [])).status, 503);
    }));
}

function derOf(pem: string): Buffer {
  return Buffer.from(pem.replaceAll(/-----[^-]*-----/g, ""), "base64");
}

interface Refusal {
  readonly code: string;
  readonly message: string;
}

/** The server never opens and says why; the client never gets an answer. */
async function refusedByServer(
  lab: TunnelLab,
  certificate: WorkloadCertificate,
  refusal: Refusal,
): Promise<void> {
  lab.requested = () => assert.fail("a refused peer's request was delivered");
  const next = lab.next();
  const dialling = lab
    .dial({ tls: tlsOptions(certificate) })
    .then((tunnel) => tunnel.open("10.0.0.1:80", []));
  await assert.rejects(dialling, { name: "EngineError" });
  const accepted = await next;
  const error = await accepted.closed.promise;
  assert.deepEqual({ code: error?.code, message: error?.message }, refusal);
  assert.equal(accepted.peer, undefined, "never opened");
}

/** The client says why; the server never sees a request and reports a failed handshake. */
async function refusedByClient(
  lab: TunnelLab,
  server: TlsOptions,
  verifyPeer: TlsOptions["verifyPeer"] | undefined,
  refusal: Refusal,
  isRevoked?: TlsOptions["isRevoked"],
): Promise<void> {
  const bad = new TunnelLab(lab.engine, lab.ca, server);
  bad.requested = () => assert.fail("a request was sent to a refused server");
  const next = bad.next();
  const certificate = await lab.ca.certificate(testIdentity("client"));
  await assert.rejects(bad.dial({ tls: tlsOptions(certificate, verifyPeer, isRevoked) }), refusal);
  const accepted = await next;
  assert.equal((await accepted.closed.promise)?.code, "handshake");
  assert.equal(accepted.peer, undefined, "never opened");
  bad.listener.close();
}

function pem(der: Uint8Array | undefined): string {
  const base64 = Buffer.from(der ?? []).toString("base64");
  const lines = base64.match(/.{1,64}/g) ?? [];
  return ["-----BEGIN CERTIFICATE-----", ...lines, "-----END CERTIFICATE-----"].join("\n");
}
