/** What this program is: the version line of log and command, and the build metric. */
import { readFileSync } from "node:fs";
import { Gauge, type Registry } from "prom-client";

type BuildFact =
  | "version"
  | "gitRevision"
  | "rustVersion"
  | "nodeVersion"
  | "buildProfile"
  | "buildStatus"
  | "istioVersion"
  | "cryptoProvider";

/** As far from src/telemetry as from dist/telemetry. */
const PACKAGE = new URL("../../package.json", import.meta.url);

/**
 * The version line in the original's shape, with Node in the place of Rust.
 *
 * @param istioVersion `ISTIO_META_ISTIO_VERSION`; `unknown` when not set.
 */
export function buildInfo(istioVersion: string | undefined): string {
  const { version, nodeVersion, cryptoProvider } = buildFacts(istioVersion);
  const facts = [
    ["Version", version],
    ["NodeVersion", nodeVersion],
    ["IstioVersion", istioVersion ?? "unknown"],
    ["CryptoProvider", cryptoProvider],
  ];
  const text = facts.map(([name, value]) => `${name}:${JSON.stringify(value)}`).join(", ");
  return `version.BuildInfo{${text}}`;
}

/** The section `version` of `/config_dump`: the original's keys and the version of Node. */
export function buildFacts(istioVersion: string | undefined): Readonly<Record<BuildFact, string>> {
  const { version } = JSON.parse(readFileSync(PACKAGE, "utf8")) as { readonly version: string };
  return {
    version,
    gitRevision: "unknown",
    rustVersion: "none",
    nodeVersion: process.versions.node,
    buildProfile: "release",
    buildStatus: "unknown",
    istioVersion: istioVersion ?? "unknown",
    cryptoProvider: `openssl-${process.versions.openssl}`,
  };
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
