import assert from "node:assert/strict";
import { test } from "node:test";
import { Registry } from "prom-client";
import { IdentityError } from "../../src/identity/identity-error.ts";
import { createCertificateMetrics } from "../../src/identity/metrics.ts";
import { LineError } from "../../src/istiod/line-error.ts";
import { TlsError } from "../../src/tls/tls-error.ts";
import { sampleSum } from "../support/metrics-text.ts";

const NONE = { Initializing: 0, Available: 0, Unavailable: 0 };

for (const [outcome, error] of [
  ["signed", undefined],
  ["refused", new IdentityError("signing", "who are you")],
  ["unreachable", new IdentityError("unreachable", "nobody there")],
  ["expired", new IdentityError("expired", "since yesterday")],
  ["invalid", new TlsError("bad-key", "for another key")],
  ["invalid", new Error("something else")],
  ["unasked", new TlsError("bad-roots", "no roots")],
  ["unasked", new LineError("token", "no token")],
] as const) {
  test(`a request that ended with ${error?.message ?? "a certificate"} counts as ${outcome}`, async () => {
    const registry = new Registry();
    createCertificateMetrics(registry, () => NONE).ended(error);
    const text = await registry.metrics();
    const name = "ztunnel_certificate_requests_total";
    assert.deepEqual([sampleSum(text, name, { outcome }), sampleSum(text, name, {})], [1, 1]);
  });
}

test("identities are counted by the state of their certificate, when they are asked for", async () => {
  const registry = new Registry();
  let counts = NONE;
  createCertificateMetrics(registry, () => counts);
  counts = { Initializing: 1, Available: 20, Unavailable: 3 };
  const text = await registry.metrics();
  const name = "ztunnel_certificates";
  assert.deepEqual(
    ["Initializing", "Available", "Unavailable"].map((state) => sampleSum(text, name, { state })),
    [1, 20, 3],
  );
});
