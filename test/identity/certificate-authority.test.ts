import { CaService } from "../../src/embedded/ca-service.ts";
import { CallerCheck } from "../../src/embedded/caller-check.ts";
import { EmbeddedAuthority } from "../../src/embedded/certificate-authority.ts";
import { ControlPlaneServer } from "../../src/embedded/control-plane-server.ts";
import { certificateOrder } from "../../src/identity/certificate-order.ts";
import { IdentityError } from "../../src/identity/identity-error.ts";
import { IstioCaClient } from "../../src/identity/istio-ca-client.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { certificateAuthoritySuite } from "../conformance/certificate-authority.ts";
import { FakeCertificateAuthority } from "../support/fake-certificate-authority.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { silentLogger } from "../support/silent-logger.ts";

const HOUR_MS = 3_600_000;

certificateAuthoritySuite("the fake", async () => {
  const clock = new FakeClock();
  const authority = new FakeCertificateAuthority(clock);
  return {
    fetch: authority.fetch,
    now: () => clock.now(),
    lifetimeMs: authority.lifetimeMs,
    refuse(refusing) {
      authority.failure = refusing
        ? new IdentityError("signing", "signing gRPC error (unavailable): refused")
        : undefined;
    },
    close() {},
  };
});

certificateAuthoritySuite("the client of the Istio CA service", async () => {
  const authority = await EmbeddedAuthority.inMemory(systemClock);
  let isRefusing = false;
  const callers = new CallerCheck({
    tokenFile: undefined,
    nodeTokenFiles: new Map(),
    clusterId: "Kubernetes",
  });
  const hasIdentity = (): boolean => !isRefusing;
  const server = await ControlPlaneServer.start(
    { authority, services: [new CaService({ authority, callers, hasIdentity, report() {} })] },
    { listen: "127.0.0.1:0", names: [] },
  );
  const client = new IstioCaClient(
    { clock: systemClock, log: silentLogger },
    {
      address: `https://127.0.0.1:${server.port}`,
      roots: { kind: "pem", pem: authority.rootPem },
      alternateHostname: undefined,
      token: undefined,
      clusterId: "Kubernetes",
      headers: [],
      validitySeconds: HOUR_MS / 1000,
      impersonate: true,
      answerMs: 30_000,
      tls: { tls12: false, postQuantumOnly: false },
    },
  );
  return {
    fetch: certificateOrder({ authority: client, log: silentLogger }, { checkIdentity: true }),
    now: () => systemClock.now(),
    lifetimeMs: HOUR_MS,
    refuse(refusing) {
      isRefusing = refusing;
    },
    close() {
      client.close();
      server.close();
    },
  };
});
