import assert from "node:assert/strict";
import { test } from "node:test";
import { CertificateStore } from "../../src/dataplane/certificate-store.ts";
import type { Identity } from "../../src/mesh/identity.ts";
import type { WorkloadCertificate } from "../../src/mesh/workload-certificate.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { memoryCertificate } from "../support/memory-certificate.ts";
import { testIdentity } from "../support/test-ca.ts";

const cart = testIdentity("cart");

/** A source whose answers the test gives. */
class Source {
  readonly asked: Identity[] = [];
  #answers: PromiseWithResolvers<WorkloadCertificate>[] = [];

  readonly ask = (identity: Identity): Promise<WorkloadCertificate> => {
    this.asked.push(identity);
    const answer = Promise.withResolvers<WorkloadCertificate>();
    this.#answers.push(answer);
    return answer.promise;
  };

  answer(certificate = memoryCertificate(cart)): WorkloadCertificate {
    this.#answers.shift()?.resolve(certificate);
    return certificate;
  }

  fail(message: string): void {
    this.#answers.shift()?.reject(new Error(message));
  }
}

test("each identity is asked for once, also by many at a time", async () => {
  const source = new Source();
  const store = new CertificateStore(source.ask, new FakeClock());
  const both = [store.certificate(cart), store.certificate({ ...cart })];
  const certificate = source.answer();
  for (const one of await Promise.all(both)) assert.equal(one, certificate);
  assert.equal(await store.certificate(cart), certificate);
  assert.deepEqual(source.asked, [cart]);
});

for (const [what, other] of [
  ["service account", testIdentity("pay")],
  ["namespace", testIdentity("cart", "other")],
  ["trust domain", testIdentity("cart", "default", "other.example")],
] as const) {
  test(`another ${what} is another certificate`, async () => {
    const source = new Source();
    const store = new CertificateStore(source.ask, new FakeClock());
    const first = store.certificate(cart);
    const second = store.certificate(other);
    source.answer();
    const certificate = source.answer(memoryCertificate(other));
    assert.notEqual(await first, certificate);
    assert.equal(await second, certificate);
  });
}

test("a failure reaches all who wait and is not kept", async () => {
  const source = new Source();
  const store = new CertificateStore(source.ask, new FakeClock());
  const waiting = [store.certificate(cart), store.certificate(cart)];
  source.fail("no authority");
  for (const one of waiting) await assert.rejects(one, { message: "no authority" });
  const again = store.certificate(cart);
  const certificate = source.answer();
  assert.equal(await again, certificate);
});

test("a renewed certificate is the one from then on, asked for before or not", async () => {
  const source = new Source();
  const store = new CertificateStore(source.ask, new FakeClock());
  const unasked = memoryCertificate(testIdentity("pay"));
  store.renewed(unasked);
  assert.equal(await store.certificate(testIdentity("pay")), unasked);
  const old = store.certificate(cart);
  source.answer();
  await old;
  const renewed = memoryCertificate(cart);
  store.renewed(renewed);
  assert.equal(await store.certificate(cart), renewed);
  assert.equal(source.asked.length, 1);
});

for (const ending of ["answered", "failed"] as const) {
  test(`a request that is ${ending} after the renewal does not undo it`, async () => {
    const source = new Source();
    const store = new CertificateStore(source.ask, new FakeClock());
    const old = store.certificate(cart);
    const renewed = memoryCertificate(cart);
    store.renewed(renewed);
    if (ending === "answered") source.answer();
    else source.fail("late");
    await Promise.allSettled([old]);
    assert.equal(await store.certificate(cart), renewed);
  });
}

test("a forgotten certificate is asked for anew", async () => {
  const source = new Source();
  const store = new CertificateStore(source.ask, new FakeClock());
  const old = store.certificate(cart);
  const first = source.answer();
  assert.equal(await old, first);
  store.forgotten(cart);
  store.forgotten(testIdentity("never-seen"));
  const again = store.certificate(cart);
  const second = source.answer();
  assert.equal(await again, second);
});

test("an expired certificate is asked for anew, be it the first or a renewed one", async () => {
  const source = new Source();
  const clock = new FakeClock();
  const store = new CertificateStore(source.ask, clock);
  const lasting = (ms: number) => ({ ...memoryCertificate(cart), notAfterAt: clock.now() + ms });
  const first = store.certificate(cart);
  source.answer(lasting(1000));
  const certificate = await first;
  await clock.advance(999);
  assert.equal(await store.certificate(cart), certificate);
  await clock.advance(1);
  const second = store.certificate(cart);
  source.fail("the authority is away");
  await assert.rejects(second, { message: "the authority is away" });

  store.renewed(lasting(1000));
  await store.certificate(cart);
  assert.equal(source.asked.length, 2);
  await clock.advance(1000);
  const third = store.certificate(cart);
  const young = source.answer(lasting(1000));
  assert.equal(await third, young);
});
