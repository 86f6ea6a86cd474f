/**
 * A mesh described in the words of its users, so that a test states only what matters to it:
 *
 *     mesh.workload("client").on("node-1").hbone().value
 *     mesh.service("echo").at("10.96.0.1").port(80, 8080).value
 */

import {
  type AuthorizationPolicy,
  EMPTY_MATCH,
  type PolicyMatch,
  type PolicyScope,
} from "../../src/mesh/authorization.ts";
import { type Cidr, parseCidr } from "../../src/mesh/cidr.ts";
import type { GatewayAddress } from "../../src/mesh/gateway-address.ts";
import { type IpAddress, parseIpAddress } from "../../src/mesh/ip-address.ts";
import type { LoadBalancingScope } from "../../src/mesh/load-balancing-scope.ts";
import type { MeshUpdate } from "../../src/mesh/mesh-update.ts";
import type {
  HealthPolicy,
  IpFamilies,
  LoadBalancingMode,
  Service,
} from "../../src/mesh/service.ts";
import type { SocketAddress } from "../../src/mesh/socket-address.ts";
import { parseSocketAddress } from "../../src/mesh/socket-address.ts";
import type { ApplicationTunnel, Workload } from "../../src/mesh/workload.ts";
import type { Clock } from "../../src/runtime/clock.ts";
import type { Random } from "../../src/runtime/random.ts";
import { AffinityTable, makeAffinityMemory } from "../../src/state/affinity-table.ts";
import { MeshMemory } from "../../src/state/mesh-memory.ts";
import { MeshState } from "../../src/state/mesh-state.ts";
import { type MeshCommit, MeshWriter } from "../../src/state/mesh-writer.ts";
import { SessionAffinity } from "../../src/state/session-affinity.ts";

/** @throws when the text is no address. */
export function ip(text: string): IpAddress {
  return required(parseIpAddress(text), text);
}

/** @throws when the text is no `address:port`. */
export function address(text: string): SocketAddress {
  return required(parseSocketAddress(text), text);
}

/** @throws when the text is no range. */
export function cidr(text: string): Cidr {
  return required(parseCidr(text), text);
}

/** A waypoint or gateway: `namespace/hostname` or `network/address`, on port 15008. */
export function gateway(text: string, hboneMtlsPort = 15008): GatewayAddress {
  const slash = text.indexOf("/");
  const [scope, name] = [text.slice(0, slash), text.slice(slash + 1)];
  const found = parseIpAddress(name);
  return {
    destination:
      found === undefined
        ? { kind: "hostname", namespace: scope, hostname: name }
        : { kind: "address", network: scope, ip: found },
    hboneMtlsPort,
  };
}

/** Where no workload is known by its host name only. */
export function noHosts(hostname: string): Promise<never> {
  return Promise.reject(new Error(`nobody knows ${hostname}`));
}

/** Of one thread, with room for so many clients that none is forgotten. */
export function makeAffinity(
  clock: Clock,
  services: Readonly<Record<string, number>> = {},
): SessionAffinity {
  return new SessionAffinity(new AffinityTable(makeAffinityMemory(16_384), clock), services);
}

/** Always answers the same. */
export function fixedRandom(unit = 0): Random {
  return { unit: () => unit, hex: (byteCount) => "0".repeat(byteCount * 2) };
}

/** The same numbers for the same seed (mulberry32). */
export function seededRandom(seed: number): Random {
  let state = seed | 0;
  return {
    unit() {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    },
    hex: (byteCount) => "0".repeat(byteCount * 2),
  };
}

export class WorkloadBuilder {
  readonly value: Workload;

  constructor(value: Workload) {
    this.value = value;
  }

  with(fields: Partial<Workload>): WorkloadBuilder {
    return new WorkloadBuilder({ ...this.value, ...fields });
  }

  /** Also renames the uid. */
  in(namespace: string): WorkloadBuilder {
    return this.with({ namespace, uid: `cluster1//Pod/${namespace}/${this.value.name}` });
  }

  on(node: string): WorkloadBuilder {
    return this.with({ node });
  }

  at(...ips: string[]): WorkloadBuilder {
    return this.with({ ips: ips.map(ip) });
  }

  hbone(): WorkloadBuilder {
    return this.with({ protocol: "HBONE" });
  }

  unhealthy(): WorkloadBuilder {
    return this.with({ status: "Unhealthy" });
  }

  hostNetwork(): WorkloadBuilder {
    return this.with({ networkMode: "HostNetwork" });
  }

  network(network: string): WorkloadBuilder {
    return this.with({ network });
  }

  waypoint(text: string): WorkloadBuilder {
    return this.with({ waypoint: gateway(text) });
  }

  tunnel(protocol: ApplicationTunnel["protocol"], port?: number): WorkloadBuilder {
    return this.with({ applicationTunnel: { protocol, port } });
  }

  locality(region: string, zone = "", subzone = ""): WorkloadBuilder {
    return this.with({ locality: { region, zone, subzone } });
  }

  /** An endpoint of a service with these ports. */
  behind(service: ServiceBuilder, ports: Record<number, number> = {}): WorkloadBuilder {
    const { namespace, hostname } = service.value;
    const services = new Map(this.value.services).set(`${namespace}/${hostname}`, portMap(ports));
    return this.with({ services });
  }

  /** Selected by these policies. */
  policies(...keys: string[]): WorkloadBuilder {
    return this.with({ authorizationPolicies: keys });
  }
}

export class ServiceBuilder {
  readonly value: Service;

  constructor(value: Service) {
    this.value = value;
  }

  with(fields: Partial<Service>): ServiceBuilder {
    return new ServiceBuilder({ ...this.value, ...fields });
  }

  /** Also renames the host name. */
  in(namespace: string): ServiceBuilder {
    return this.with({ namespace, hostname: `${this.value.name}.${namespace}.svc.cluster.local` });
  }

  hostname(hostname: string): ServiceBuilder {
    return this.with({ hostname });
  }

  /** Adds addresses: `IP` in the default network, or `network/IP`. */
  at(...vips: string[]): ServiceBuilder {
    const added = vips.map((text) => {
      const slash = text.indexOf("/");
      return { network: text.slice(0, Math.max(slash, 0)), ip: ip(text.slice(slash + 1)) };
    });
    return this.with({ vips: [...this.value.vips, ...added] });
  }

  /** Adds ranges of a network. */
  ranges(network: string, ...ranges: string[]): ServiceBuilder {
    const added = ranges.map((text) => ({ network, cidr: cidr(text) }));
    return this.with({ cidrVips: [...this.value.cidrVips, ...added] });
  }

  port(port: number, target: number): ServiceBuilder {
    return this.with({ ports: new Map(this.value.ports).set(port, target) });
  }

  balance(
    mode: LoadBalancingMode,
    routingPreferences: readonly LoadBalancingScope[] = [],
    healthPolicy: HealthPolicy = "OnlyHealthy",
  ): ServiceBuilder {
    return this.with({ loadBalancer: { mode, routingPreferences, healthPolicy } });
  }

  acceptUnhealthy(): ServiceBuilder {
    return this.balance("Standard", [], "AllowAll");
  }

  families(ipFamilies: IpFamilies): ServiceBuilder {
    return this.with({ ipFamilies });
  }

  canonical(): ServiceBuilder {
    return this.with({ canonical: true });
  }

  /** Visible in its own namespace only. */
  hidden(): ServiceBuilder {
    return this.with({ visibility: "Namespace" });
  }

  waypoint(text: string): ServiceBuilder {
    return this.with({ waypoint: gateway(text) });
  }

  names(...subjectAltNames: string[]): ServiceBuilder {
    return this.with({ subjectAltNames });
  }
}

export class PolicyBuilder {
  readonly value: AuthorizationPolicy;

  constructor(value: AuthorizationPolicy) {
    this.value = value;
  }

  with(fields: Partial<AuthorizationPolicy>): PolicyBuilder {
    return new PolicyBuilder({ ...this.value, ...fields });
  }

  scope(scope: PolicyScope): PolicyBuilder {
    return this.with({ scope });
  }

  dryRun(): PolicyBuilder {
    return this.with({ dryRun: true });
  }

  /** Adds a rule of one clause with these matches. */
  rule(...matches: Partial<PolicyMatch>[]): PolicyBuilder {
    return this.with({ rules: [...this.value.rules, [matches.map(match)]] });
  }
}

/** A match that asks only for what is given. */
export function match(fields: Partial<PolicyMatch>): PolicyMatch {
  return { ...EMPTY_MATCH, ...fields };
}

/** Where every description starts. */
export const mesh = {
  /** In namespace `default`, with a service account of its own name, plain TCP. */
  workload(name: string): WorkloadBuilder {
    return new WorkloadBuilder({
      uid: `cluster1//Pod/default/${name}`,
      name,
      namespace: "default",
      ips: [],
      hostname: "",
      network: "",
      protocol: "TCP",
      trustDomain: "cluster.local",
      serviceAccount: name,
      waypoint: undefined,
      networkGateway: undefined,
      node: "",
      canonicalName: name,
      canonicalRevision: "v1",
      workloadType: "deployment",
      workloadName: name,
      nativeTunnel: false,
      authorizationPolicies: [],
      status: "Healthy",
      clusterId: "Kubernetes",
      services: new Map(),
      applicationTunnel: undefined,
      locality: { region: "", zone: "", subzone: "" },
      networkMode: "Standard",
      capacity: 1,
    });
  },

  /** In namespace `default`, public, without addresses and ports. */
  service(name: string): ServiceBuilder {
    return new ServiceBuilder({
      name,
      namespace: "default",
      hostname: `${name}.default.svc.cluster.local`,
      vips: [],
      cidrVips: [],
      ports: new Map(),
      subjectAltNames: [],
      waypoint: undefined,
      weightedWaypoints: [],
      loadBalancer: undefined,
      ipFamilies: "Automatic",
      canonical: false,
      visibility: "Public",
      affinitySeconds: undefined,
    });
  },

  allow(name: string, namespace = "default"): PolicyBuilder {
    return policy(name, namespace, "Allow");
  },

  deny(name: string, namespace = "default"): PolicyBuilder {
    return policy(name, namespace, "Deny");
  },

  /** A state that knows these, in this order. */
  state(...parts: (WorkloadBuilder | ServiceBuilder | PolicyBuilder)[]): LiveMesh {
    const state = liveMesh(undefined);
    state.apply(parts.map(asUpdate));
    return state;
  },
};

/** Reader and writer of one mesh. */
export interface LiveMesh extends MeshState {
  readonly writer: MeshWriter;
  /** Writes, then tells those who listen. */
  apply(updates: readonly MeshUpdate[]): MeshCommit;
}

/** An empty mesh. @param localNode `undefined`: every workload counts as this node's. */
export function liveMesh(localNode: string | undefined): LiveMesh {
  const memory = new MeshMemory();
  const writer = new MeshWriter(memory, { localNode });
  const state = new MeshState(memory);
  const apply = (updates: readonly MeshUpdate[]): MeshCommit => {
    writer.apply(updates);
    const commit = writer.commit();
    state.announce(commit);
    return commit;
  };
  return Object.assign(state, { writer, apply });
}

export function asUpdate(part: WorkloadBuilder | ServiceBuilder | PolicyBuilder): MeshUpdate {
  if (part instanceof WorkloadBuilder) return { kind: "workload", workload: part.value };
  if (part instanceof ServiceBuilder) return { kind: "service", service: part.value };
  return { kind: "policy", policy: part.value };
}

function policy(name: string, namespace: string, action: "Allow" | "Deny"): PolicyBuilder {
  return new PolicyBuilder({
    name,
    namespace,
    scope: "WorkloadSelector",
    action,
    dryRun: false,
    rules: [],
  });
}

function portMap(ports: Record<number, number>): ReadonlyMap<number, number> {
  return new Map(Object.entries(ports).map(([port, target]) => [Number(port), target]));
}

function required<Value>(value: Value | undefined, text: string): Value {
  if (value === undefined) throw new Error(`bad test input ${text}`);
  return value;
}
