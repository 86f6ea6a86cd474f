import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { test } from "node:test";
import { CertificateCache } from "../../src/identity/certificate-cache.ts";
import { IdentityError } from "../../src/identity/identity-error.ts";
import { formatSpiffeId } from "../../src/mesh/identity.ts";
import type { WorkloadCertificate } from "../../src/mesh/workload-certificate.ts";
import type { Random } from "../../src/runtime/random.ts";
import type { Logger } from "../../src/telemetry/logger.ts";
import { FakeCertificateAuthority } from "../support/fake-certificate-authority.ts";
import { FakeClock, settle } from "../support/fake-clock.ts";
import { silentLogger } from "../support/silent-logger.ts";
import { testCa, testIdentity } from "../support/test-ca.ts";

const SECOND = 1000;
const HOUR = 3600 * SECOND;
const a = testIdentity("a");
const b = testIdentity("b");

function fixture() {
  const clock = new FakeClock();
  const authority = new FakeCertificateAuthority(clock);
  const logged: string[] = [];
  const log: Logger = {
    ...silentLogger,
    enabled: (level) => level !== "debug" && level !== "trace",
    write: (level, message) => logged.push(`${level} ${message}`),
  };
  /** Retries come exactly at their nominal time. */
  const random: Random = { unit: () => 0.5, hex: () => "" };
  const skew = { observe() {} };
  /** Messages of failures, `undefined` for successes. */
  const ended: (string | undefined)[] = [];
  const metrics = { ended: (error: Error | undefined) => ended.push(error?.message) };
  const cache = new CertificateCache(
    { fetch: authority.fetch, clock, random, log, skew, metrics },
    { waitMs: 10 * SECOND },
  );
  return { clock, authority, logged, ended, cache };
}

/** What became of a promise, as far as it has. */
function watch(promise: Promise<WorkloadCertificate>) {
  const seen: { certificate?: string; error?: string } = {};
  promise.then(
    (certificate) => {
      seen.certificate = certificate.chainPem[0] as string;
    },
    (error: Error) => {
      seen.error = error.message;
    },
  );
  return seen;
}

test("a hundred identities are fetched once and then held", async () => {
  const { authority, cache, clock } = fixture();
  const identities = Array.from({ length: 100 }, (_, i) => testIdentity(`sa${i}`));
  for (let round = 0; round < 3; round++) {
    const all = Promise.all(identities.map((id) => cache.certificate(id, "real-time")));
    await clock.advance(10);
    const certificates = await all;
    assert.deepEqual(
      certificates.map(({ identity }) => identity),
      identities,
    );
  }
  assert.equal(authority.requested.length, 100);
});

test("a certificate is renewed at half its life, and handed out until then", async () => {
  const { authority, cache, clock } = fixture();
  const renewed: string[] = [];
  cache.onRenewed(({ chainPem }) => renewed.push(chainPem[0] as string));
  const first = await cache.certificate(a, "real-time");

  await clock.advance(12 * HOUR - 1);
  assert.equal(await cache.certificate(a, "real-time"), first);
  assert.equal(authority.requested.length, 1);
  await clock.advance(1);
  const second = await cache.certificate(a, "real-time");
  assert.notEqual(second, first);
  await clock.advance(12 * HOUR);
  assert.equal(authority.requested.length, 3);
  assert.deepEqual(renewed, [
    "certificate 1 for spiffe://cluster.local/ns/default/sa/a",
    "certificate 2 for spiffe://cluster.local/ns/default/sa/a",
    "certificate 3 for spiffe://cluster.local/ns/default/sa/a",
  ]);
});

test("while a renewal is on its way the old certificate is handed out", async () => {
  const { authority, cache, clock } = fixture();
  const first = await cache.certificate(a, "real-time");
  authority.latencyMs = 5 * SECOND;
  await clock.advance(12 * HOUR + SECOND);
  assert.equal(authority.requested.length, 2);
  assert.equal(await cache.certificate(a, "real-time"), first);
});

test("renewals of certificates that came together are spread over a tenth of their life", async () => {
  const clock = new FakeClock();
  const authority = new FakeCertificateAuthority(clock);
  const units = [0, 0.25, 0.5, 0.999];
  const random: Random = { unit: () => units.shift() ?? 0.5, hex: () => "" };
  const cache = new CertificateCache(
    {
      fetch: authority.fetch,
      clock,
      random,
      log: silentLogger,
      skew: { observe() {} },
      metrics: { ended() {} },
    },
    { waitMs: 10 * SECOND },
  );
  for (const name of ["s1", "s2", "s3", "s4"]) {
    await cache.certificate(testIdentity(name), "real-time");
  }
  authority.requested.length = 0;
  const start = clock.now();
  const counts = [];
  for (const atHour of [10.7, 10.9, 11.5, 12.1, 13.2]) {
    await clock.advance(atHour * HOUR - (clock.now() - start));
    counts.push(authority.requested.length);
  }
  assert.deepEqual(counts, [0, 1, 2, 3, 4]);
  cache.close();
});

test("a connection waits for its certificate as long as it may, and says what it waited for", async () => {
  const { authority, cache, clock } = fixture();
  authority.latencyMs = 25 * SECOND;
  const seen = watch(cache.certificate(a, "real-time"));
  const prefetched = watch(cache.certificate(a, "warmup"));
  for (let i = 0; i < 7; i++) watch(cache.certificate(testIdentity(`busy${i}`), "real-time"));
  const queued = watch(cache.certificate(b, "real-time"));
  await clock.advance(10 * SECOND - 1);
  assert.equal(seen.error, undefined);
  await clock.advance(1);
  assert.equal(
    seen.error,
    "no certificate for spiffe://cluster.local/ns/default/sa/a within 10s: " +
      "the authority has not answered",
  );
  assert.equal(
    queued.error,
    "no certificate for spiffe://cluster.local/ns/default/sa/b within 10s: " +
      "8 other requests are on their way to the authority",
  );
  await clock.advance(15 * SECOND);
  assert.match(prefetched.certificate ?? "", /^certificate 1 for/);
  assert.match((await cache.certificate(a, "real-time")).chainPem[0] as string, /^certificate 1 /);
});

test("a certificate of two minutes that istiod dates back by two is renewed after one", async () => {
  const { authority, cache, clock } = fixture();
  authority.lifetimeMs = authority.datedBackMs = 120 * SECOND;
  await cache.certificate(a, "real-time");
  await clock.advance(60 * SECOND - 1);
  assert.equal(authority.requested.length, 1);
  await clock.advance(1);
  assert.equal(authority.requested.length, 2);
});

test("a certificate that comes expired is a failure that says so, with its back-off", async () => {
  const { authority, cache, clock, logged, ended } = fixture();
  authority.lifetimeMs = -120 * SECOND;
  const message =
    "the certificate that came for spiffe://cluster.local/ns/default/sa/a expired at 2027-01-15T07:58:00.000000Z";
  await assert.rejects(cache.certificate(a, "real-time"), { code: "expired", message });
  assert.deepEqual(logged, [
    `warn certificate fetch failed (${message}) and no valid existing certificate; will retry in 1s ` +
      "(backoff capped at 150s)",
  ]);
  await clock.advance(10 * SECOND);
  // At 0, 1, 3 and 7.
  assert.equal(authority.requested.length, 4);
  authority.lifetimeMs = HOUR;
  assert.deepEqual(cache.counts(), { Initializing: 0, Available: 0, Unavailable: 1 });
  await clock.advance(5 * SECOND);
  assert.equal((await cache.certificate(a, "real-time")).identity, a);
  assert.equal(ended.length, 5);
  assert.deepEqual([ended[0], ended[4]], [message, undefined]);
  assert.deepEqual(cache.counts(), { Initializing: 0, Available: 1, Unavailable: 0 });
});

test("a certificate that comes all but expired is not renewed in a loop", async () => {
  const { authority, cache, clock } = fixture();
  authority.lifetimeMs = 1;
  await cache.certificate(a, "real-time");
  await clock.advance(10 * SECOND);
  assert.equal(authority.requested.length, 11);
});

test("one that comes expired does not take the place of one that is valid", async () => {
  const { authority, cache, clock } = fixture();
  const first = await cache.certificate(a, "real-time");
  authority.lifetimeMs = -1;
  await clock.advance(13 * HOUR);
  assert.equal(await cache.certificate(a, "real-time"), first);
});

test("a certificate that ends while its renewal is on its way is waited for, not handed out", async () => {
  const { authority, cache, clock } = fixture();
  authority.lifetimeMs = 10 * SECOND;
  await cache.certificate(a, "real-time");
  authority.latencyMs = 8 * SECOND;
  await clock.advance(10 * SECOND);
  const seen = watch(cache.certificate(a, "real-time"));
  await clock.advance(2 * SECOND);
  assert.deepEqual(seen, {});
  await clock.advance(SECOND);
  assert.match(seen.certificate ?? "", /^certificate 2 for/);
  assert.equal(authority.requested.length, 2);
});

test("a machine that slept longer than a certificate lives asks for the next one at once", async () => {
  const { authority, cache, clock } = fixture();
  await cache.certificate(a, "real-time");
  // Its timers stood still.
  clock.jump(25 * HOUR);
  assert.match((await cache.certificate(a, "real-time")).chainPem[0] as string, /^certificate 2 /);
  authority.failure = new Error("no");
  clock.jump(25 * HOUR);
  await assert.rejects(cache.certificate(a, "real-time"), { message: "no" });
  cache.close();
});

test("what is wanted now goes before what may be wanted, and that before renewals", async () => {
  const { authority, cache, clock } = fixture();
  const old = testIdentity("old");
  await cache.certificate(old, "real-time");
  authority.requested.length = 0;

  // All eight places are taken when the renewal comes due and the others arrive.
  await clock.advance(12 * HOUR - 1);
  authority.latencyMs = 10;
  const busy = Array.from({ length: 8 }, (_, i) => testIdentity(`busy${i}`));
  for (const identity of busy) watch(cache.certificate(identity, "real-time"));
  await clock.advance(1);
  watch(cache.certificate(testIdentity("warm"), "warmup"));
  watch(cache.certificate(testIdentity("now1"), "real-time"));
  watch(cache.certificate(testIdentity("raised"), "warmup"));
  watch(cache.certificate(testIdentity("now2"), "real-time"));
  watch(cache.certificate(testIdentity("raised"), "real-time"));
  watch(cache.certificate(testIdentity("now1"), "warmup"));
  await clock.advance(100);

  assert.deepEqual(authority.requested.slice(8), ["now1", "now2", "raised", "warm", "old"]);
});

test("many callers share one fetch", async () => {
  const { authority, cache, clock } = fixture();
  authority.latencyMs = SECOND;
  const all = Promise.all([1, 2, 3, 4, 5].map(() => cache.certificate(a, "real-time")));
  await clock.advance(SECOND);
  assert.equal(new Set(await all).size, 1);
  assert.equal(authority.requested.length, 1);
});

test("at most eight fetches are on their way at once, and eight take one latency", async () => {
  const { authority, cache, clock } = fixture();
  authority.latencyMs = SECOND;
  const seen = Array.from({ length: 17 }, (_, i) =>
    watch(cache.certificate(testIdentity(`sa${i}`), "real-time")),
  );
  const done = () => seen.filter(({ certificate }) => certificate !== undefined).length;
  const counts = [];
  for (let second = 1; second <= 3; second++) {
    await clock.advance(SECOND);
    counts.push(done());
  }
  assert.deepEqual(counts, [8, 16, 17]);
  assert.equal(authority.inFlightPeak, 8);
});

test("a forgotten identity leaves nothing behind", async () => {
  const { authority, cache, clock } = fixture();
  await cache.certificate(a, "real-time");
  assert.deepEqual(cache.forget(a), [a]);
  assert.deepEqual(cache.forget(b), []);
  assert.deepEqual(cache.dump(), []);
  assert.equal(clock.pendingCount, 0);
  await clock.advance(24 * HOUR);
  assert.equal(authority.requested.length, 1);
});

test("whoever waits for a forgotten identity is told, and the late answer is thrown away", async () => {
  const { authority, cache, clock } = fixture();
  authority.latencyMs = SECOND;
  const wait = cache.certificate(a, "real-time");
  const rejected = assert.rejects(wait, (error) => {
    assert.ok(error instanceof IdentityError);
    assert.equal(error.code, "forgotten");
    assert.equal(error.message, "the identity is no longer needed");
    return true;
  });
  cache.forget(a);
  await rejected;
  await clock.advance(SECOND);
  assert.deepEqual(cache.dump(), []);
});

test("an identity that waits in the queue when it is forgotten is never asked for", async () => {
  const { authority, cache, clock } = fixture();
  authority.latencyMs = SECOND;
  for (let i = 0; i < 8; i++) watch(cache.certificate(testIdentity(`busy${i}`), "real-time"));
  const seen = watch(cache.certificate(a, "real-time"));
  cache.forget(a);
  await clock.advance(3 * SECOND);
  assert.equal(seen.error, "the identity is no longer needed");
  assert.ok(!authority.requested.includes("a"));
});

test("an answer on its way serves whoever asks again after the identity was forgotten", async () => {
  const { authority, cache, clock } = fixture();
  authority.latencyMs = SECOND;
  watch(cache.certificate(a, "real-time"));
  await clock.advance(500);
  cache.forget(a);
  const seen = watch(cache.certificate(a, "real-time"));
  await clock.advance(500);
  assert.equal(seen.certificate, "certificate 1 for spiffe://cluster.local/ns/default/sa/a");
  assert.equal(authority.requested.length, 1);
});

test("a failure is answered at once until a retry succeeds, and callers trigger none", async () => {
  const { authority, cache, clock, logged } = fixture();
  authority.failure = new IdentityError("signing", "no");
  await assert.rejects(cache.certificate(a, "real-time"), { message: "no" });
  assert.deepEqual(logged, [
    "warn certificate fetch failed (no) and no valid existing certificate; will retry in 1s " +
      "(backoff capped at 150s)",
  ]);
  authority.failure = undefined;
  await clock.advance(999);
  await assert.rejects(cache.certificate(a, "real-time"), { message: "no" });
  assert.equal(authority.requested.length, 1);
  assert.equal(cache.dump()[0]?.state, "Unavailable: no");

  await clock.advance(1);
  assert.equal((await cache.certificate(a, "real-time")).identity, a);
});

test("an authority that answers again is asked at once by those whom it left unanswered", async () => {
  const { authority, cache, clock } = fixture();
  authority.failure = new IdentityError("unreachable", "away");
  await assert.rejects(cache.certificate(a, "real-time"));
  authority.failure = new IdentityError("signing", "refused");
  await assert.rejects(cache.certificate(b, "real-time"));
  authority.failure = new IdentityError("unreachable", "away");
  await clock.advance(100 * SECOND);
  authority.failure = undefined;
  await clock.advance(0);
  const { length } = authority.requested;

  // b was refused at first, then left alone, too.
  cache.retryUnanswered();
  cache.retryUnanswered();
  await settle();
  assert.deepEqual(authority.requested.slice(length), ["a", "b"]);
  assert.equal((await cache.certificate(a, "real-time")).identity, a);
  assert.equal((await cache.certificate(b, "real-time")).identity, b);
  cache.retryUnanswered();
  // Half a day later comes the renewal, and nothing before.
  await clock.advance(11 * HOUR);
  assert.equal(authority.requested.length, length + 2);
});

test("who was refused is not asked for because the authority answers", async () => {
  const { authority, cache } = fixture();
  authority.failure = new IdentityError("signing", "refused");
  await assert.rejects(cache.certificate(a, "real-time"));
  cache.retryUnanswered();
  await settle();
  assert.equal(authority.requested.length, 1);
});

test("the error is answered also while the retry is on its way", async () => {
  const { authority, cache, clock } = fixture();
  authority.failure = new Error("no");
  await assert.rejects(cache.certificate(a, "real-time"));
  authority.failure = undefined;
  authority.latencyMs = 10 * SECOND;
  await clock.advance(2 * SECOND);
  assert.equal(authority.requested.length, 2);
  await assert.rejects(cache.certificate(a, "real-time"), { message: "no" });
});

test("each identity backs off by itself, and from the beginning after a success", async () => {
  const { authority, cache, clock } = fixture();
  const times: number[] = [];
  const start = clock.now();
  const fetch = async (identity: typeof a) => {
    if (identity === a) times.push((clock.now() - start) / SECOND);
    return authority.fetch(identity);
  };
  const random: Random = { unit: () => 0.5, hex: () => "" };
  const own = new CertificateCache(
    { fetch, clock, random, log: silentLogger, skew: { observe() {} }, metrics: { ended() {} } },
    { waitMs: 10 * SECOND },
  );
  authority.lifetimeMs = 10 * SECOND;
  authority.failure = new Error("no");
  watch(own.certificate(a, "real-time"));
  await clock.advance(5 * SECOND);
  watch(own.certificate(b, "real-time"));
  await clock.advance(SECOND);
  authority.failure = undefined;
  await clock.advance(SECOND);
  authority.failure = new Error("again");
  await clock.advance(9 * SECOND);

  // Failures at 0, 1, 3; success at 7; its renewal fails at 12 and is retried a second later.
  assert.deepEqual(times, [0, 1, 3, 7, 12, 13, 15]);
  cache.close();
  own.close();
});

test("a valid certificate is kept while its renewal fails, until it expires", async () => {
  const { authority, cache, clock, logged } = fixture();
  authority.lifetimeMs = 10 * SECOND;
  const first = await cache.certificate(a, "real-time");
  authority.failure = new Error("no");

  await clock.advance(5 * SECOND);
  assert.equal(await cache.certificate(a, "real-time"), first);
  assert.deepEqual(logged, [
    "info certificate renewal failed (no); retaining existing valid certificate until " +
      "2027-01-15T08:00:10.000000Z; next retry at 2027-01-15T08:00:06.000000Z",
  ]);
  await clock.advance(5 * SECOND - 1);
  assert.equal(await cache.certificate(a, "real-time"), first);

  // Tried at 5, 6, 8 and, instead of at 12, when the certificate ends.
  assert.equal(authority.requested.length, 4);
  await clock.advance(1);
  assert.equal(authority.requested.length, 5);
  await assert.rejects(cache.certificate(a, "real-time"), { message: "no" });
});

test("a failed renewal that succeeds in time is nobody's concern", async () => {
  const { authority, cache, clock } = fixture();
  await cache.certificate(a, "real-time");
  authority.failure = new Error("no");
  await clock.advance(12 * HOUR);
  authority.failure = undefined;
  await clock.advance(SECOND);
  assert.match((await cache.certificate(a, "real-time")).chainPem[0] as string, /^certificate 3 /);
});

test("identities are prefetched one after another", async () => {
  const { authority, cache, clock } = fixture();
  authority.latencyMs = SECOND;
  for (const name of ["p1", "p2", "p1", "p3"]) cache.prefetch(testIdentity(name));
  await settle();
  assert.deepEqual(authority.requested, ["p1"]);
  await clock.advance(3 * SECOND);
  assert.deepEqual(authority.requested, ["p1", "p2", "p3"]);
  assert.equal(authority.inFlightPeak, 1);
});

test("a prefetch that fails is logged and the next one follows", async () => {
  const { authority, cache, clock, logged } = fixture();
  authority.failure = new Error("no");
  cache.prefetch(a);
  cache.prefetch(b);
  await clock.advance(10);
  assert.deepEqual(authority.requested, ["a", "b"]);
  assert.ok(
    logged.includes(
      'error unable to prefetch cert for "spiffe://cluster.local/ns/default/sa/a", skipping, no',
    ),
  );
});

test("an identity forgotten while its prefetch waits is not fetched", async () => {
  const { authority, cache, clock } = fixture();
  authority.latencyMs = SECOND;
  cache.prefetch(a);
  cache.prefetch(b);
  cache.forget(b);
  await clock.advance(3 * SECOND);
  assert.deepEqual(authority.requested, ["a"]);
});

test("prefetches beyond 256 are dropped with a line", async () => {
  const { authority, cache, clock, logged } = fixture();
  authority.latencyMs = 1;
  for (let i = 0; i < 258; i++) cache.prefetch(testIdentity(`p${i}`));
  assert.deepEqual(logged, ["info couldn't prefetch: 256 identities wait"]);
  await clock.advance(300);
  assert.equal(authority.requested.length, 257);
});

test("the dump shows each identity's state and certificates, sorted", async () => {
  const clock = new FakeClock();
  const ca = await testCa({ now: () => clock.now() });
  const held = await ca.certificate(b, { intermediate: true });
  const { promise, resolve } = Promise.withResolvers<WorkloadCertificate>();
  const fetch = async (identity: typeof a) =>
    identity === b ? promise : Promise.reject(new Error("no"));
  const random: Random = { unit: () => 0.5, hex: () => "" };
  const cache = new CertificateCache(
    { fetch, clock, random, log: silentLogger, skew: { observe() {} }, metrics: { ended() {} } },
    { waitMs: 10 * SECOND },
  );

  const waiting = cache.certificate(b, "real-time");
  await assert.rejects(cache.certificate(a, "real-time"));
  assert.deepEqual(
    cache.dump().map(({ identity, state }) => [identity, state]),
    [
      [formatSpiffeId(a), "Unavailable: no"],
      [formatSpiffeId(b), "Initializing"],
    ],
  );
  resolve(held);
  await waiting;
  const entry = cache.dump()[1];
  assert.equal(entry?.state, "Available");
  assert.deepEqual(
    entry?.certChain.map(({ pem }) => new X509Certificate(Buffer.from(pem, "base64")).raw),
    held.chainPem.map((pem) => new X509Certificate(pem).raw),
  );
  assert.equal(entry?.rootCerts.length, 1);
  assert.match(entry?.certChain[0]?.serialNumber ?? "", /^\d+$/);
  assert.equal(entry?.certChain[0]?.expirationTime, "2027-01-16T08:00:00Z");
});

test("a closed cache keeps no timer and lets nobody wait", async () => {
  const { authority, cache, clock, logged } = fixture();
  await cache.certificate(a, "real-time");
  authority.latencyMs = SECOND;
  const seen = watch(cache.certificate(b, "real-time"));
  for (const name of ["p1", "p2"]) cache.prefetch(testIdentity(name));
  cache.close();
  cache.close();
  await clock.advance(SECOND);
  assert.equal(seen.error, "certificates are no longer handed out");
  assert.equal(clock.pendingCount, 0);
  assert.deepEqual(logged, []);
  await assert.rejects(cache.certificate(a, "real-time"), { code: "closed" });
});
