/** What this program is: the version line of log and command, and the build metric. */
import { readFileSync } from "node:fs";
import { Gauge, type Registry } from "prom-client";

/** As far from src/telemetry as from dist/telemetry. */
const PACKAGE = new URL("../../package.json", import.meta.url);

/**
 * The version line in the original's shape, with Node in the place of Rust.
 *
 * @param istioVersion `ISTIO_META_ISTIO_VERSION`; `unknown` when not set.
 */
export function buildInfo(istioVersion: string | undefined): string {
  const { version } = JSON.parse(readFileSync(PACKAGE, "utf8")) as { readonly version: string };
  const facts = [
    ["Version", version],
    ["NodeVersion", process.versions.node],
    ["IstioVersion", istioVersion ?? "unknown"],
    ["CryptoProvider", `openssl-${process.versions.openssl}`],
  ];
  const text = facts.map(([name, value]) => `${name}:${JSON.stringify(value)}`).join(", ");
  return `version.BuildInfo{${text}}`;
}

/** Registers `istio_build`, by which dashboards find the versions of a mesh's components. */
export function registerBuildMetric(registry: Registry, istioVersion: string): void {
  new Gauge({
    name: "istio_build",
    help: "Istio component build info.",
    labelNames: ["component", "tag"],
    registers: [registry],
  })
    .labels("ztunnel", istioVersion)
    .set(1);
}
