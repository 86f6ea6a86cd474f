/** What operators see of certificates; the names are ours. */
import { Counter, Gauge, type Registry } from "prom-client";
import { LineError } from "../istiod/line-error.ts";
import { TlsError } from "../tls/tls-error.ts";
import type { CertificateCounts, CertificateMetrics } from "./certificate-cache.ts";
import { IdentityError } from "./identity-error.ts";

/** How a request ended, as the metric names it. */
type Outcome = "signed" | "refused" | "unreachable" | "expired" | "invalid" | "unasked";

/** @param counts asked at each scrape. */
export function createCertificateMetrics(
  registry: Registry,
  counts: () => CertificateCounts,
): CertificateMetrics {
  const registers = [registry];
  const requests = new Counter({
    name: "ztunnel_certificate_requests_total",
    help: "Requests for certificates by outcome: signed, refused or unreachable authority, an expired or otherwise invalid answer, unasked for lack of token or roots.",
    labelNames: ["outcome"],
    registers,
  });
  const held: Gauge = new Gauge({
    name: "ztunnel_certificates",
    help: "Identities of this node's workloads by the state of their certificate, as in the dump.",
    labelNames: ["state"],
    registers,
    collect() {
      for (const [state, count] of Object.entries(counts())) held.set({ state }, count);
    },
  });
  return {
    ended: (error) => requests.inc({ outcome: error === undefined ? "signed" : outcomeOf(error) }),
  };
}

function outcomeOf(error: Error): Outcome {
  if (error instanceof LineError) return "unasked";
  if (error instanceof TlsError) return error.code === "bad-roots" ? "unasked" : "invalid";
  if (!(error instanceof IdentityError)) return "invalid";
  return error.code === "unreachable" || error.code === "expired" ? error.code : "refused";
}

/** @param seconds by how much our clock is ahead of the authority's; asked at each scrape. */
export function registerClockSkew(registry: Registry, seconds: () => number): void {
  const skew: Gauge = new Gauge({
    name: "ztunnel_clock_skew_seconds",
    help: "By how much this node's clock is ahead of the certificate authority's, as its fresh certificates show; 0 within a minute.",
    registers: [registry],
    collect() {
      skew.set(seconds());
    },
  });
}
