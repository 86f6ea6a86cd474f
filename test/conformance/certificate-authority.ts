/**
 * What every source of certificates must do for the certificate cache, whoever signs.
 */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { IdentityError } from "../../src/identity/identity-error.ts";
import type { Identity } from "../../src/mesh/identity.ts";
import type { WorkloadCertificate } from "../../src/mesh/workload-certificate.ts";
import { testIdentity } from "../support/test-ca.ts";

/** A source and the authority behind it. */
export interface AuthorityLab {
  readonly fetch: (identity: Identity) => Promise<WorkloadCertificate>;
  /** Wall clock of the authority, milliseconds since the epoch. */
  now(): number;
  /** How long certificates are asked to be valid. */
  readonly lifetimeMs: number;
  /** From now on the authority signs for nobody, or again. */
  refuse(refusing: boolean): void;
  close(): void;
}

/** A certificate may be backdated this much against clocks that differ, and rounded. */
const BACKDATED_MS_MAX = 5 * 60_000;
const ROUNDING_MS = 1000;

const AT_ONCE = 20;

export function certificateAuthoritySuite(
  name: string,
  openLab: () => Promise<AuthorityLab>,
): void {
  describe(`${name} as a certificate authority`, () => {
    let lab: AuthorityLab;
    const cart = testIdentity("cart", "shop");

    before(async () => {
      lab = await openLab();
    });
    after(() => lab.close());

    it("signs for the identity that was asked for, valid from now on", async () => {
      const askedAt = lab.now();
      const certificate = await lab.fetch(cart);
      const now = lab.now();
      assert.deepEqual(certificate.identity, cart);
      assert.ok(certificate.notBeforeAt <= now, "not valid yet");
      assert.ok(certificate.notBeforeAt >= askedAt - BACKDATED_MS_MAX, "valid long ago");
      const { notAfterAt } = certificate;
      const [earliest, latest] = [askedAt + lab.lifetimeMs, now + lab.lifetimeMs];
      assert.ok(notAfterAt > earliest - ROUNDING_MS, `${earliest - notAfterAt} ms too short`);
      assert.ok(notAfterAt < latest + ROUNDING_MS, `${notAfterAt - latest} ms too long`);
    });

    it("gives a chain, a key and roots", async () => {
      const { chainPem, privateKeyPem, rootsPem } = await lab.fetch(cart);
      assert.ok(chainPem.length > 0 && rootsPem.length > 0);
      assert.ok([...chainPem, ...rootsPem, privateKeyPem].every((text) => text !== ""));
      assert.ok(!rootsPem.some((root) => chainPem.includes(root)), "a root in the chain");
    });

    it("never gives a chain or a key twice", async () => {
      const certificates = await Promise.all(
        Array.from({ length: AT_ONCE }, () => lab.fetch(cart)),
      );
      assert.equal(new Set(certificates).size, AT_ONCE);
      assert.equal(new Set(certificates.map(({ chainPem }) => chainPem[0])).size, AT_ONCE);
      assert.equal(new Set(certificates.map(({ privateKeyPem }) => privateKeyPem)).size, AT_ONCE);
    });

    it("keeps identities apart that are asked for at once", async () => {
      const identities = Array.from({ length: AT_ONCE }, (_, index) =>
        testIdentity(`sa-${index % 5}`, `ns-${index}`),
      );
      const certificates = await Promise.all(identities.map((identity) => lab.fetch(identity)));
      assert.deepEqual(
        certificates.map(({ identity }) => identity),
        identities,
      );
    });

    it("gives plain data that crosses threads", async () => {
      const certificate = await lab.fetch(cart);
      assert.deepEqual(structuredClone(certificate), certificate);
    });

    it("fails with a signing error while it refuses, and signs again later", async () => {
      lab.refuse(true);
      for (let i = 0; i < 2; i++) {
        await assert.rejects(lab.fetch(cart), (error) => {
          assert.ok(error instanceof IdentityError, String(error));
          assert.equal(error.code, "signing");
          assert.match(error.message, /^signing gRPC error \(.+\): ./);
          return true;
        });
      }
      lab.refuse(false);
      assert.deepEqual((await lab.fetch(cart)).identity, cart);
    });
  });
}
