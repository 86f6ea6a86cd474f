/** A {@link WhyReport} for people. */
import type { ForecastJudgement, ForecastRoute } from "../proxy/connection-forecast.ts";
import type { PolicyExplanation } from "../rbac/policy-explanation.ts";
import type { WhyReport } from "./why-report.ts";

/** @returns lines for a terminal. */
export function formatWhy(report: WhyReport): string {
  const { source, destination, route, judgement, connect } = report;
  const from = source.workload === null ? source.address : `${source.workload} (${source.address})`;
  const to =
    destination.name === null
      ? destination.address
      : `${destination.name} (${destination.address})`;
  return [
    `${from} -> ${to}`,
    ...row("source", describeSource(report)),
    ...row("route", describeRoute(route)),
    ...row("certificate", describeCertificate(report)),
    ...row("policies", describePolicies(route, judgement)),
    ...row("verdict", [describeVerdict(report)]),
    ...(connect === null ? [] : row("connect", [describeConnect(connect, route)])),
    ...row("note", report.notes),
  ].join("\n");
}

/** The label stands before the first line. */
function row(label: string, lines: readonly string[]): string[] {
  return lines.map((line, i) => `${(i === 0 ? label : "").padEnd(13)}${line}`);
}

function describeSource({ source, route }: WhyReport): string[] {
  if (source.workload === null) return ["unknown to the mesh, not captured"];
  if (route.kind === "plain") return ["not in the mesh, not captured"];
  switch (source.enrolled) {
    case "Up":
      return ["captured by this daemon"];
    case "Pending":
      return ["handed to this daemon, which could not start its listeners yet"];
    case "Draining":
      return [
        "taken back from this daemon, which carries the connections that it has to their end",
      ];
    default:
      return [
        `not of this daemon; the one on node ${source.node || "?"} knows whether it is captured`,
      ];
  }
}

function describeRoute(route: ForecastRoute): string[] {
  const { kind, reason, error, remote, authority, expected = [], service } = route;
  const { expectedBeyond: beyond } = route;
  const way = {
    refuse: `refused: ${error}`,
    unresolved: "decided once the host name has been looked up",
    tcp: `plain TCP to ${remote}`,
    plain: `plain TCP to ${remote}, as the network takes it`,
    loopback: `to ${remote} on the pod's own loopback`,
    hbone: `tunnel to ${remote}, which connects to ${authority}`,
  }[kind];
  return [
    way,
    `because ${reason}`,
    ...(service === undefined ? [] : [`by service ${service}`]),
    ...(route.waypoint === undefined ? [] : [`through waypoint ${route.waypoint}`]),
    ...(route.gateway === undefined ? [] : [`through network gateway ${route.gateway}`]),
    ...(route.workload === undefined ? [] : [`to workload ${route.workload}`]),
    ...(route.affinity === undefined ? [] : [describeAffinity(route.affinity)]),
    ...(route.leftOut ?? []).map(
      ({ workload, port, failures, thread, until }) =>
        `not to ${workload}, port ${port}: ${failures} connects in a row failed, left out by ${thread} until ${until}`,
    ),
    ...expected.map((identity) => `the other end must be ${identity}`),
    ...(beyond ?? []).map((identity) => `beyond the gateway must be ${identity}`),
    ...(beyond?.length === 0
      ? ["beyond the gateway nobody is believed: the mesh names no identity"]
      : []),
  ];
}

function describeAffinity({ seconds, kept }: NonNullable<ForecastRoute["affinity"]>): string {
  const why = kept ? "where the client was last" : "where the client's address leads";
  return `${why}: the service keeps it at one endpoint for ${seconds} s after its last connection`;
}

function describeCertificate({ certificate }: WhyReport): string[] {
  if (certificate === null) return ["none is shown"];
  const { identity, state, expirationTime } = certificate;
  if (state === "none") return [identity, "this daemon does not hold it"];
  return [identity, expirationTime === null ? state : `${state}, until ${expirationTime}`];
}

function describePolicies(
  route: ForecastRoute,
  judgement: ForecastJudgement | undefined,
): string[] {
  if (route.kind === "refuse") return ["nobody judges: it does not leave the source"];
  if (route.gateway !== undefined) return ["judged in the other network"];
  if (route.kind === "loopback") return ["nobody judges what stays in the pod"];
  if (judgement === undefined && route.waypoint !== undefined) {
    return ["judged by the waypoint; no endpoint with a proxy of the mesh is known behind it"];
  }
  if (judgement === undefined) return ["nobody judges: the destination has no proxy of the mesh"];
  const { workload, node, identity, policies, unknown } = judgement;
  return [
    `${policies.length} for ${workload}, judged on node ${node || "?"} for ${identity ?? "a source without an identity"}`,
    ...policies.map(describePolicy),
    ...unknown.map((key) => `${key}: named by the workload, but nobody has sent it`),
  ];
}

function describePolicy(explained: PolicyExplanation): string {
  const { policy, action, dryRun, matches, rule, missing } = explained;
  const kind = `${policy} (${action.toLowerCase()}${dryRun ? ", dry run" : ""})`;
  if (matches) return `${kind}: rule ${rule} matches`;
  const nearest = rule === undefined ? "" : `; nearest is rule ${rule}`;
  return `${kind}: no match${nearest}: ${missing.join(", and ")}`;
}

function describeVerdict({ route, judgement }: WhyReport): string {
  if (route.kind === "refuse") return `refused at the source: ${route.error}`;
  if (judgement?.verdict === "deny") return `denied: ${judgement.reason}`;
  return judgement === undefined ? "goes through" : "allowed";
}

function describeConnect(
  { state, end, tookMs, source }: NonNullable<WhyReport["connect"]>,
  { kind }: ForecastRoute,
): string {
  const isLogged = source !== null && kind !== "loopback";
  const where = isLogged ? `; its access line has src.addr=${source}` : "";
  switch (state) {
    case "open":
      return `open after ${tookMs} ms${where}`;
    case "closed":
      return `taken, then ended with ${end} after ${tookMs} ms${where}`;
    case "failed":
      return `failed with ${end} after ${tookMs} ms`;
  }
}
