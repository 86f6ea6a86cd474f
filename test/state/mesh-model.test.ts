/** Every lookup against a mesh that finds by looking at everything, under random histories. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { type AuthorizationPolicy, policyKey } from "../../src/mesh/authorization.ts";
import type { MeshUpdate } from "../../src/mesh/mesh-update.ts";
import { type Service, serviceKey } from "../../src/mesh/service.ts";
import type { Workload } from "../../src/mesh/workload.ts";
import { findGatewayDestination } from "../../src/state/waypoint.ts";
import { encodeAddress } from "../../src/wire/address-resource.ts";
import { encodeAuthorization } from "../../src/wire/authorization-resource.ts";
import { fuzz } from "../fuzz/fuzz.ts";
import {
  asUpdate,
  cidr,
  gateway,
  ip,
  type LiveMesh,
  liveMesh,
  mesh,
  type ServiceBuilder,
} from "../support/mesh-fixture.ts";

/** A step of a history: what a control plane sends, or sends and is not understood. */
type Step = MeshUpdate | { readonly kind: "refuse-policy"; readonly policy: AuthorizationPolicy };

/** What is known of a resource, and since which step. */
interface Kept<Value> {
  readonly value: Value;
  readonly since: number;
  readonly at: number;
}

class NaiveMesh {
  readonly workloads = new Map<string, Kept<Workload>>();
  readonly services = new Map<string, Kept<Service>>();
  readonly policies = new Map<string, AuthorizationPolicy>();
  readonly refused = new Map<string, AuthorizationPolicy>();
  #steps = 0;

  take(step: Step): void {
    const at = ++this.#steps;
    switch (step.kind) {
      case "workload": {
        const { uid } = step.workload;
        const since = this.workloads.get(uid)?.since ?? at;
        this.workloads.set(uid, { value: step.workload, since, at });
        break;
      }
      case "service": {
        const key = serviceKey(step.service);
        const since = this.services.get(key)?.since ?? at;
        this.services.set(key, { value: step.service, since, at });
        break;
      }
      case "remove-address":
        if (!this.workloads.delete(step.name)) this.services.delete(step.name);
        break;
      case "policy":
        this.policies.set(policyKey(step.policy), step.policy);
        this.refused.delete(policyKey(step.policy));
        break;
      case "remove-policy":
        this.policies.delete(step.name);
        this.refused.delete(step.name);
        break;
      case "refuse-policy": {
        const key = policyKey(step.policy);
        if (!this.policies.has(key)) this.refused.set(key, step.policy);
      }
    }
  }

  workloadAt(network: string, address: string): Workload | undefined {
    const rank = ({ uid, protocol }: Workload): number =>
      (uid.includes("//Pod/") ? 2 : 0) + (protocol === "HBONE" ? 1 : 0);
    return this.#bestWorkload(
      (w) => w.network === network && w.networkMode === "Standard" && includes(w.ips, address),
      (a, b) => rank(b.value) - rank(a.value) || b.at - a.at,
    );
  }

  workloadNamed(namespace: string, hostname: string): Workload | undefined {
    return this.#bestWorkload(
      (w) => w.namespace === namespace && w.hostname === hostname && hostname !== "",
      (a, b) => a.since - b.since,
    );
  }

  local(name: string, namespace: string): Workload | undefined {
    return this.#bestWorkload(
      (w) => w.name === name && w.namespace === namespace && w.node === "node-1",
      (a, b) => a.since - b.since,
    );
  }

  #bestWorkload(
    isMeant: (workload: Workload) => boolean,
    order: (a: Kept<Workload>, b: Kept<Workload>) => number,
  ): Workload | undefined {
    return [...this.workloads.values()].filter(({ value }) => isMeant(value)).sort(order)[0]?.value;
  }

  serviceAt(network: string, address: string, client: string | undefined): Service | undefined {
    const visible = this.#visible(client);
    const exact = visible.filter(({ value }) =>
      value.vips.some((vip) => vip.network === network && vip.ip === address),
    );
    if (exact.length > 0) return preferred(exact, client);
    const bits = bitsOf(address);
    const ranges = visible.flatMap((kept) =>
      kept.value.cidrVips
        .filter((range) => range.network === network)
        .filter(({ cidr: { ip: from, prefixLength } }) => {
          const own = bitsOf(from);
          return own.length === bits.length && own.startsWith(bits.slice(0, prefixLength));
        })
        .map(({ cidr: { prefixLength } }) => ({ ...kept, prefixLength })),
    );
    ranges.sort(
      (a, b) =>
        Number(b.value.namespace === client) - Number(a.value.namespace === client) ||
        b.prefixLength - a.prefixLength ||
        Number(b.value.canonical) - Number(a.value.canonical) ||
        a.since - b.since,
    );
    return ranges[0]?.value;
  }

  serviceNamed(hostname: string, client: string | undefined): Service | undefined {
    return preferred(
      this.#visible(client).filter(({ value }) => value.hostname === hostname),
      client,
    );
  }

  #visible(client: string | undefined): Kept<Service>[] {
    return [...this.services.values()].filter(
      ({ value }) =>
        client === undefined || value.visibility === "Public" || value.namespace === client,
    );
  }

  endpoints(service: Service): Workload[] {
    const acceptsAll = service.loadBalancer?.healthPolicy === "AllowAll";
    return [...this.workloads.values()]
      .map(({ value }) => value)
      .filter((w) => w.services.has(serviceKey(service)) && (acceptsAll || w.status === "Healthy"));
  }

  policiesFor(workload: Workload): { policies: AuthorizationPolicy[]; unknown: string[] } {
    const scoped = (all: ReadonlyMap<string, AuthorizationPolicy>): AuthorizationPolicy[] => {
      const byName = [...all.values()].sort((a, b) => (policyKey(a) < policyKey(b) ? -1 : 1));
      return [
        ...byName.filter((p) => p.scope === "Namespace" && p.namespace === workload.namespace),
        ...byName.filter(({ scope }) => scope === "Global"),
      ];
    };
    const unknown = scoped(this.refused).map(policyKey);
    const policies = scoped(this.policies);
    for (const key of workload.authorizationPolicies) {
      const policy = this.policies.get(key);
      if (policy !== undefined) policies.push(policy);
      else if (!unknown.includes(key)) unknown.push(key);
    }
    return { policies, unknown };
  }
}

/** The client's namespace, then the last canonical, then the first; in one namespace by name. */
function preferred(sharing: Kept<Service>[], client: string | undefined): Service | undefined {
  const winners = new Map<string, Kept<Service>>();
  for (const kept of sharing.sort((a, b) => a.since - b.since)) {
    const { namespace } = kept.value;
    const other = winners.get(namespace);
    const isBetter =
      other === undefined ||
      Number(kept.value.canonical) - Number(other.value.canonical) > 0 ||
      (kept.value.canonical === other.value.canonical &&
        kept.value.hostname < other.value.hostname);
    if (isBetter) winners.set(namespace, kept);
  }
  const own = client === undefined ? undefined : winners.get(client);
  if (own !== undefined) return own.value;
  const left = [...winners.values()].sort((a, b) => a.since - b.since);
  return (left.findLast(({ value }) => value.canonical) ?? left[0])?.value;
}

function includes(ips: readonly string[], address: string): boolean {
  return ips.includes(address);
}

function bitsOf(address: string): string {
  return [...cidr(`${address}/${address.includes(":") ? 128 : 32}`).network]
    .map((byte) => byte.toString(2).padStart(8, "0"))
    .join("");
}

const ADDRESSES = ["10.0.0.1", "10.0.0.2", "10.0.1.3", "fd00::1"];
const RANGES = ["10.0.0.0/24", "10.0.0.0/8", "10.0.0.0/31", "0.0.0.0/0", "fd00::/64", "fd00::/7"];
const NETWORKS = ["", "net1"];
const NAMESPACES = ["default", "shop", "other"];
const NAMES = ["w1", "w2", "w3", "w4"];
const SERVICES: ServiceBuilder[] = ["a", "b"].flatMap((name) => [
  mesh.service(name),
  mesh.service(name).in("shop"),
  // The same host name in another namespace.
  mesh.service(name).in("other").hostname(`${name}.shop.svc.cluster.local`),
]);
const POLICIES = NAMESPACES.flatMap((namespace) => ["p", "q"].map((p) => mesh.allow(p, namespace)));

const anyWorkload = fc
  .record({
    name: fc.constantFrom(...NAMES),
    namespace: fc.constantFrom("default", "shop"),
    entry: fc.boolean(),
    ips: fc.subarray(ADDRESSES),
    hostname: fc.constantFrom("", "", "ext.example", SERVICES[1]?.value.hostname ?? ""),
    network: fc.constantFrom(...NETWORKS),
    node: fc.constantFrom("node-1", "node-2"),
    hbone: fc.boolean(),
    healthy: fc.boolean(),
    host: fc.boolean(),
    capacity: fc.constantFrom(0, 1, 1, 3),
    services: fc.subarray(SERVICES),
    policies: fc.subarray(POLICIES.map(({ value }) => policyKey(value))),
  })
  .map((w): Step => {
    let builder = mesh.workload(w.name).in(w.namespace);
    if (w.entry) builder = builder.with({ uid: `entry/${w.namespace}/${w.name}` });
    builder = builder
      .at(...w.ips)
      .network(w.network)
      .on(w.node)
      .policies(...w.policies)
      .with({ hostname: w.hostname, capacity: w.capacity });
    if (w.hbone) builder = builder.hbone();
    if (!w.healthy) builder = builder.unhealthy();
    if (w.host) builder = builder.hostNetwork();
    for (const service of w.services) builder = builder.behind(service, { 80: 8080 });
    return asUpdate(builder);
  });

const anyService = fc
  .record({
    service: fc.constantFrom(...SERVICES),
    vips: fc.subarray(ADDRESSES),
    ranges: fc.subarray(RANGES),
    network: fc.constantFrom(...NETWORKS),
    acceptUnhealthy: fc.boolean(),
    canonical: fc.boolean(),
    hidden: fc.boolean(),
  })
  .map((s): Step => {
    let builder = s.service
      .at(...s.vips.map((vip) => `${s.network}/${vip}`))
      .ranges(s.network, ...s.ranges);
    if (s.acceptUnhealthy) builder = builder.acceptUnhealthy();
    if (s.canonical) builder = builder.canonical();
    if (s.hidden) builder = builder.hidden();
    return asUpdate(builder);
  });

const anyPolicy = fc
  .record({
    policy: fc.constantFrom(...POLICIES),
    scope: fc.constantFrom("Global" as const, "Namespace" as const, "WorkloadSelector" as const),
    understood: fc.boolean(),
    ports: fc.subarray([80, 443]),
  })
  .map(({ policy, scope, understood, ports }): Step => {
    const { value } = policy.scope(scope).rule({ destinationPorts: ports });
    return { kind: understood ? "policy" : "refuse-policy", policy: value };
  });

const ADDRESS_NAMES = [
  ...NAMES.flatMap((n) =>
    ["default", "shop"].flatMap((ns) => [`cluster1//Pod/${ns}/${n}`, `entry/${ns}/${n}`]),
  ),
  ...SERVICES.map(({ value }) => serviceKey(value)),
];
const anyRemoval = fc.oneof(
  fc.constantFrom(...ADDRESS_NAMES).map((name): Step => ({ kind: "remove-address", name })),
  fc
    .constantFrom(...POLICIES.map(({ value }) => policyKey(value)))
    .map((name): Step => ({ kind: "remove-policy", name })),
);

fuzz(
  "every lookup agrees with a naive mesh under random updates",
  fc.property(
    fc.array(fc.oneof(anyWorkload, anyWorkload, anyService, anyPolicy, anyRemoval), {
      maxLength: 60,
    }),
    (steps) => {
      const state = liveMesh("node-1");
      const naive = new NaiveMesh();
      for (const [index, step] of steps.entries()) {
        write(state, step);
        naive.take(step);
        if (index % 10 === 9) assertAlike(state, naive);
      }
      assertAlike(state, naive);
      for (const name of ADDRESS_NAMES) write(state, { kind: "remove-address", name });
      for (const { value } of POLICIES) {
        write(state, { kind: "remove-policy", name: policyKey(value) });
      }
      assert.deepEqual(state.counts(), { workloads: 0, services: 0, policies: 0 });
    },
  ),
);

function write({ writer }: LiveMesh, step: Step): void {
  switch (step.kind) {
    case "workload":
    case "service":
      writer.putAddress(encodeAddress(step), "1");
      break;
    case "policy":
      writer.putPolicy(encodeAuthorization(step.policy), "");
      break;
    case "refuse-policy":
      writer.refusePolicy(policyKey(step.policy), encodeAuthorization(step.policy));
      break;
    case "remove-address":
      writer.removeAddress(step.name);
      break;
    case "remove-policy":
      writer.removePolicy(step.name);
      break;
  }
}

function assertAlike(state: LiveMesh, naive: NaiveMesh): void {
  assert.deepEqual(state.counts(), {
    workloads: naive.workloads.size,
    services: naive.services.size,
    policies: naive.policies.size,
  });
  const refusals = Array.from(state.writer.refusals(), ({ name }) => name);
  const refused = [...naive.refused].filter(([, { scope }]) => scope !== "WorkloadSelector");
  assert.deepEqual(refusals.sort(), refused.map(([key]) => key).sort());
  for (const uid of ADDRESS_NAMES) {
    const workload = naive.workloads.get(uid)?.value;
    assert.deepEqual(state.findWorkload(uid), workload);
    if (workload !== undefined) {
      assert.deepEqual(state.policiesFor(workload), naive.policiesFor(workload));
      assert.deepEqual(
        state.servicesOf(workload).map(({ service }) => service),
        [...workload.services.keys()].flatMap((key) => naive.services.get(key)?.value ?? []),
      );
    }
  }
  for (const network of NETWORKS) {
    for (const text of [...ADDRESSES, "10.0.0.77", "fd00::99", "fc00::1"]) {
      const address = ip(text);
      const workload = naive.workloadAt(network, text);
      assert.deepEqual(state.findWorkloadByAddress(network, address), workload);
      for (const client of [undefined, ...NAMESPACES]) {
        const service = naive.serviceAt(network, text, client);
        assert.deepEqual(state.findServiceByVip(network, address, client)?.service, service);
      }
      const waypoint = findGatewayDestination(state, gateway(`${network}/${text}`));
      const service = naive.serviceAt(network, text, undefined);
      assert.deepEqual(
        waypoint?.kind === "service" ? waypoint.known.service : waypoint?.workload,
        workload ?? service,
      );
    }
  }
  for (const { value } of SERVICES) assertServiceAlike(state, naive, value);
  for (const namespace of NAMESPACES) {
    assert.deepEqual(
      state.findWorkloadByHostname(namespace, "ext.example"),
      naive.workloadNamed(namespace, "ext.example"),
    );
  }
  for (const name of NAMES) {
    for (const namespace of ["default", "shop"]) {
      const local = state.findLocalWorkload({ name, namespace, serviceAccount: name });
      const expected = naive.local(name, namespace);
      assert.deepEqual(local, expected);
    }
  }
}

function assertServiceAlike(state: LiveMesh, naive: NaiveMesh, named: Service): void {
  const { namespace, hostname } = named;
  for (const client of [undefined, ...NAMESPACES]) {
    const byName = naive.serviceNamed(hostname, client);
    assert.deepEqual(state.findServiceByHostname(hostname, client)?.service, byName);
  }
  const expected = naive.services.get(serviceKey(named))?.value;
  const known = state.findService(namespace, hostname);
  assert.deepEqual(known?.service, expected);
  const waypoint = findGatewayDestination(state, gateway(`${namespace}/${hostname}`));
  assert.deepEqual(
    waypoint?.kind === "service" ? waypoint.known.service : waypoint?.workload,
    expected ?? naive.workloadNamed(namespace, hostname),
  );
  if (known === undefined || expected === undefined) return;
  const endpoints = naive.endpoints(expected);
  assert.deepEqual(byUid(known.endpoints.values()), byUid(endpoints));
  const numbers = Array.from({ length: known.endpoints.size }, (_, i) => known.endpoints.at(i));
  assert.deepEqual(byUid(numbers.filter((one) => one !== undefined)), byUid(endpoints));
  assert.equal(known.endpoints.at(known.endpoints.size), undefined);
  assert.equal(
    known.endpoints.isEven,
    endpoints.every(({ capacity }) => capacity === 1),
  );
  for (const uid of ADDRESS_NAMES) {
    assert.equal(
      known.endpoints.has(uid),
      endpoints.some((one) => one.uid === uid),
    );
  }
}

function byUid(workloads: Iterable<Workload>): Workload[] {
  return [...workloads].sort((a, b) => (a.uid < b.uid ? -1 : 1));
}
