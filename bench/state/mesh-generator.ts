/**
 * A mesh of any size as a control plane sends it, the same at every call: pods with names, labels and
 * localities of the length that clusters have, each behind a service, some behind two.
 */
import {
  type AuthorizationPolicy,
  type PolicyMatch,
  policyKey,
} from "../../src/mesh/authorization.ts";
import { serviceKey } from "../../src/mesh/service.ts";
import type { Workload } from "../../src/mesh/workload.ts";
import { encodeAddress } from "../../src/wire/address-resource.ts";
import { encodeAuthorization } from "../../src/wire/authorization-resource.ts";
import {
  ADDRESS_TYPE,
  AUTHORIZATION_TYPE,
  type DeltaDiscoveryResponse,
  deltaDiscoveryMethod,
} from "../../src/wire/delta-discovery.ts";
import { match, mesh, type ServiceBuilder } from "../../test/support/mesh-fixture.ts";

export interface MeshSize {
  readonly workloads: number;
  readonly services: number;
  readonly policies: number;
}

type Resource = DeltaDiscoveryResponse["resources"][number];

const NAMESPACES = 200;
const PODS_PER_NODE = 22;
const REGIONS = ["europe-west1", "us-central1"];

export class MeshGenerator {
  readonly #size: MeshSize;
  readonly #services: readonly ServiceBuilder[];
  #nonce = 0;

  constructor(size: MeshSize) {
    this.#size = size;
    this.#services = Array.from({ length: size.services }, (_, i) =>
      mesh
        .service(`${SERVICE_NAMES[i % SERVICE_NAMES.length]}-${i}`)
        .in(namespaceOf(i))
        .at(`10.${96 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`)
        .port(80, 8080)
        .port(9090, 9090),
    );
  }

  /** All workloads and services in one response, as istiod answers a new stream. */
  addresses(): Uint8Array {
    const resources: Resource[] = [];
    for (const service of this.#services) {
      const bytes = encodeAddress({ kind: "service", service: service.value });
      resources.push(this.#resource(ADDRESS_TYPE, serviceKey(service.value), bytes, 0));
    }
    for (let i = 0; i < this.#size.workloads; i++) resources.push(this.#workload(i, 0));
    return this.#response(ADDRESS_TYPE, resources);
  }

  authorizations(): Uint8Array {
    const resources = Array.from({ length: this.#size.policies }, (_, i) => {
      const policy = policyOf(i);
      return this.#resource(AUTHORIZATION_TYPE, policyKey(policy), encodeAuthorization(policy), 0);
    });
    return this.#response(AUTHORIZATION_TYPE, resources);
  }

  /** One endpoint that became unhealthy, or healthy again in every other round. */
  change(step: number): Uint8Array {
    const index = (step * 7919) % this.#size.workloads;
    return this.#response(ADDRESS_TYPE, [this.#workload(index, step + 1)]);
  }

  #workload(index: number, version: number): Resource {
    const workload = this.#describe(index, version);
    const bytes = encodeAddress({ kind: "workload", workload });
    return this.#resource(ADDRESS_TYPE, workload.uid, bytes, version);
  }

  #describe(i: number, version: number): Workload {
    const service = this.#services[i % this.#services.length] as ServiceBuilder;
    const { namespace } = service.value;
    const account = service.value.name;
    const region = REGIONS[i % REGIONS.length] as string;
    const node = Math.floor(i / PODS_PER_NODE);
    let workload = mesh
      .workload(`${account}-${hex(i * 2654435761).slice(0, 9)}-${hex(i).slice(-5)}`)
      .with({ serviceAccount: account, canonicalName: account, workloadName: account })
      .in(namespace)
      .at(`10.${128 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`)
      .on(`gke-production-pool-${hex(node)}`)
      .locality(region, `${region}-${"abc"[node % 3]}`)
      .with({ network: "" })
      .hbone()
      .behind(service, { 80: 8080, 9090: 9090 });
    if (i % 10 === 0) {
      const second = this.#services[(i * 31) % this.#services.length] as ServiceBuilder;
      workload = workload.behind(second, { 80: 8080 });
    }
    if (i % 5 === 0) workload = workload.policies(`${namespace}/allow-${i % this.#size.policies}`);
    if (version % 2 === 1) workload = workload.unhealthy();
    return workload.value;
  }

  #resource(typeUrl: string, name: string, value: Uint8Array, version: number): Resource {
    const text = typeUrl === ADDRESS_TYPE ? hex(hash(name) ^ version) + hex(version) : "";
    const resource = { typeUrl, value };
    return { name, version: text, aliases: [], resource };
  }

  #response(typeUrl: string, resources: Resource[]): Uint8Array {
    return deltaDiscoveryMethod.responseSerialize({
      systemVersionInfo: "",
      typeUrl,
      nonce: String(++this.#nonce),
      resources,
      removedResources: [],
    });
  }
}

const SERVICE_NAMES = ["checkout", "recommendation", "cart", "payment-gateway", "frontend", "ads"];

/** One of three selects workloads, the others apply to their namespace. */
function policyOf(i: number): AuthorizationPolicy {
  const namespace = namespaceOf(i);
  const account = (n: number): Partial<PolicyMatch> => ({
    principals: [
      {
        kind: "exact",
        value: `cluster.local/ns/${namespaceOf(n)}/sa/${SERVICE_NAMES[n % 6]}-${n}`,
      },
    ],
  });
  const policy = mesh
    .allow(`allow-${i}`, namespace)
    .rule(account(i), account(i + 1), match({ destinationPorts: [8080] }))
    .rule(account(i + 2), { sourceIps: [] });
  return policy.scope(i % 3 === 0 ? "WorkloadSelector" : "Namespace").value;
}

function namespaceOf(i: number): string {
  return `team-${i % NAMESPACES}-production`;
}

function hex(value: number): string {
  return (value >>> 0).toString(16).padStart(8, "0");
}

function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return value;
}
