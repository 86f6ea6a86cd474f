/** The mesh in which the situations of recorded/ were recorded, as two nodes knew it. */
import {
  type AuthorizationPolicy,
  EMPTY_MATCH,
  type PolicyMatch,
} from "../../src/mesh/authorization.ts";
import type { GatewayAddress } from "../../src/mesh/gateway-address.ts";
import type { IpAddress } from "../../src/mesh/ip-address.ts";
import type { MeshUpdate } from "../../src/mesh/mesh-update.ts";
import type { Service } from "../../src/mesh/service.ts";
import type { Workload } from "../../src/mesh/workload.ts";
import { mesh } from "../support/mesh-fixture.ts";

const ECHO = "default/echo.default.svc.cluster.local";
const PAIR = "default/pair.default.svc.cluster.local";
const WAYPOINT = "mute-waypoint.default.svc.cluster.local";

export const CLIENT_1: Workload = workload("client1", "10.77.0.11", { node: "node-a" });

/** @param node `liar` is another service account in the eyes of its own node. */
export function recordedMesh(node: "node-a" | "node-b"): readonly MeshUpdate[] {
  return [
    ...workloads(node).map((one): MeshUpdate => ({ kind: "workload", workload: one })),
    ...services().map((one): MeshUpdate => ({ kind: "service", service: one })),
    ...policies().map((one): MeshUpdate => ({ kind: "policy", policy: one })),
  ];
}

export function workload(name: string, ip: string, more: Partial<Workload> = {}): Workload {
  const { value } = mesh.workload(name).at(ip).on("node-b").hbone();
  return { ...value, uid: `lab//Pod/default/${name}`, ...more };
}

/** An enforced policy with one rule of one match, for the workloads that list it. */
export function policy(
  name: string,
  action: "Allow" | "Deny",
  match: Partial<PolicyMatch>,
  dryRun = false,
): AuthorizationPolicy {
  const rules = [[[{ ...EMPTY_MATCH, ...match }]]];
  return { name, namespace: "default", scope: "WorkloadSelector", action, dryRun, rules };
}

function workloads(node: "node-a" | "node-b"): readonly Workload[] {
  const here = { node: "node-a" };
  return [
    CLIENT_1,
    workload("client2", "10.77.0.12", here),
    workload("server1", "10.77.0.21", { services: ports(ECHO, PAIR) }),
    workload("server2", "10.77.0.22", {
      authorizationPolicies: ["default/allow-client1", "default/deny-8081"],
    }),
    workload("server3", "10.77.0.23", {
      services: ports(PAIR),
      authorizationPolicies: ["default/dry-run-deny"],
    }),
    workload("server4", "10.77.0.24", { waypoint: gateway("nowhere.default.svc.cluster.local") }),
    workload("liar", "10.77.0.25", {
      serviceAccount: node === "node-a" ? "expected" : "actual",
    }),
    workload("mute", "10.77.0.26", { waypoint: gateway(WAYPOINT) }),
    workload("plain", "10.77.0.33", { protocol: "TCP" }),
    workload("stale", "10.77.0.34", {
      services: new Map([[`default/${WAYPOINT}`, new Map([[15008, 15008]])]]),
    }),
    workload("lost", "10.98.0.9"),
  ];
}

function services(): readonly Service[] {
  return [
    service("echo", "10.78.0.1"),
    service("pair", "10.78.0.2"),
    service("empty", "10.78.0.3"),
    service("behind", "10.78.0.4", { waypoint: gateway("nowhere.default.svc.cluster.local") }),
    service("mute-waypoint", "10.78.0.5", { ports: new Map([[15008, 15008]]) }),
  ];
}

function policies(): readonly AuthorizationPolicy[] {
  const client1 = [{ kind: "exact" as const, value: "cluster.local/ns/default/sa/client1" }];
  return [
    policy("allow-client1", "Allow", { principals: client1 }),
    policy("deny-8081", "Deny", { destinationPorts: [8081] }),
    policy("dry-run-deny", "Deny", { principals: client1 }, true),
  ];
}

function service(name: string, vip: string, more: Partial<Service> = {}): Service {
  return {
    name,
    namespace: "default",
    hostname: `${name}.default.svc.cluster.local`,
    vips: [{ network: "", ip: vip as IpAddress }],
    cidrVips: [],
    ports: new Map([[80, 8080]]),
    subjectAltNames: [],
    waypoint: undefined,
    weightedWaypoints: [],
    loadBalancer: undefined,
    ipFamilies: "Automatic",
    canonical: false,
    visibility: "Public",
    affinitySeconds: undefined,
    ...more,
  };
}

function ports(...keys: string[]): Workload["services"] {
  return new Map(keys.map((key) => [key, new Map([[80, 8080]])]));
}

function gateway(hostname: string): GatewayAddress {
  return {
    destination: { kind: "hostname", namespace: "default", hostname },
    hboneMtlsPort: 15008,
  };
}
