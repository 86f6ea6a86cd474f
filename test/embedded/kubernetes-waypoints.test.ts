import assert from "node:assert/strict";
import { test } from "node:test";
import type { GatewayAddress } from "../../src/wire/proto/istio-workload.ts";
import { meshOf, podYaml, serviceYaml } from "./translated-mesh.ts";

/** A waypoint with its service; a listener in another's words where `listener` is given. */
function waypointYaml(
  name: string,
  { namespace = "shop", metadata = "", listener = "", status = "{}" } = {},
): string {
  const service = serviceYaml(name).replace("namespace: shop", `namespace: ${namespace}`);
  return `${service}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ${name}, namespace: ${namespace}${metadata && `, ${metadata}`}}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{port: 15008, protocol: HBONE${listener && `, ${listener}`}}]
status: ${status}
`;
}

function namespaceYaml(metadata: string): string {
  return `
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, ${metadata}}
`;
}

function nameOf(address: GatewayAddress | undefined): string | undefined {
  return address?.destination?.$case === "hostname"
    ? address.destination.value.hostname.split(".")[0]
    : address?.destination?.value.address.join(".");
}

const USE = "istio.io/use-waypoint";
const FROM = "allowedRoutes: {namespaces: {from";
const ATTACHMENTS: readonly {
  readonly name: string;
  readonly text: string;
  readonly labels?: string;
  readonly service: string | undefined;
  readonly workload?: string | undefined;
}[] = [
  { name: "no label", text: waypointYaml("w"), service: undefined },
  { name: "an own label", text: waypointYaml("w"), labels: `${USE}: w`, service: "w" },
  { name: "a waypoint that is not there", text: "", labels: `${USE}: w`, service: undefined },
  {
    name: "a waypoint for all",
    text: waypointYaml("w", { metadata: "labels: {istio.io/waypoint-for: all}" }),
    labels: `${USE}: w`,
    service: "w",
    workload: "w",
  },
  {
    name: "a waypoint for workloads",
    text: waypointYaml("w", { metadata: "labels: {istio.io/waypoint-for: workload}" }),
    labels: `${USE}: w`,
    service: undefined,
    workload: "w",
  },
  {
    name: "a waypoint for none",
    text: waypointYaml("w", { metadata: "labels: {istio.io/waypoint-for: none}" }),
    labels: `${USE}: w`,
    service: undefined,
  },
  {
    name: "the namespace's label",
    text: waypointYaml("w") + namespaceYaml(`labels: {${USE}: w}`),
    service: "w",
  },
  {
    name: "the word none against the namespace's label",
    text: waypointYaml("w") + namespaceYaml(`labels: {${USE}: w}`),
    labels: `${USE}: none`,
    service: undefined,
  },
  {
    name: "an own waypoint that is not there against the namespace's label",
    text: waypointYaml("w") + namespaceYaml(`labels: {${USE}: w}`),
    labels: `${USE}: other`,
    service: undefined,
  },
  {
    name: "a waypoint of another namespace that admits only its own",
    text: waypointYaml("w", { namespace: "two" }),
    labels: `${USE}: w, ${USE}-namespace: two`,
    service: undefined,
  },
  {
    name: "a waypoint of another namespace that admits all",
    text: waypointYaml("w", { namespace: "two", listener: `${FROM}: All}}` }),
    labels: `${USE}: w, ${USE}-namespace: two`,
    service: "w",
  },
  {
    name: "a waypoint that admits a namespace by name",
    text: waypointYaml("w", {
      namespace: "two",
      listener: `${FROM}: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: shop}}}}`,
    }),
    labels: `${USE}: w, ${USE}-namespace: two`,
    service: "w",
  },
  {
    name: "a waypoint that admits some other namespaces",
    text: waypointYaml("w", {
      namespace: "two",
      listener: `${FROM}: Selector, selector: {matchExpressions: [{key: team, operator: NotIn, values: [a]}, {key: team, operator: Exists}]}}}`,
    }),
    labels: `${USE}: w, ${USE}-namespace: two`,
    service: undefined,
  },
  {
    name: "a service that is a gateway's own",
    text: waypointYaml("w"),
    labels: `${USE}: w, gateway.istio.io/managed: istio.io-mesh-controller`,
    service: undefined,
  },
  {
    name: "a waypoint that was given an IP address",
    text: waypointYaml("w", { status: "{addresses: [{type: IPAddress, value: 192.0.2.7}]}" }),
    labels: `${USE}: w`,
    service: "192.0.2.7",
  },
];

for (const { name, text, labels = "", service, workload } of ATTACHMENTS) {
  test(`${name}: the service stands behind ${service}, the workload behind ${workload}`, () => {
    const mesh = meshOf(
      `${text}${serviceYaml("a", `labels: {${labels}}`)}${podYaml("p", `labels: {${labels}}`)}`,
    );
    assert.deepEqual(mesh.mistakes, []);
    assert.equal(nameOf(mesh.services.get("shop/a.shop.svc.cluster.local")?.waypoint), service);
    assert.equal(nameOf(mesh.workloads.get("Kubernetes//Pod/shop/p")?.waypoint), workload);
  });
}

const CANARY = `${USE}-canary`;
const WEIGHT = `${CANARY}-weight`;
const CANARIES: readonly {
  readonly name: string;
  readonly text?: string;
  readonly service: string;
  readonly weights: readonly (readonly [string, number])[];
}[] = [
  {
    name: "a weight",
    service: `labels: {${USE}: w, ${CANARY}: v}, annotations: {${WEIGHT}: "10"}`,
    weights: [
      ["w", 90],
      ["v", 10],
    ],
  },
  {
    name: "no weight",
    service: `labels: {${USE}: w, ${CANARY}: v}`,
    weights: [
      ["w", 100],
      ["v", 0],
    ],
  },
  ...["101", "-1", "x", "1.5"].map((weight) => ({
    name: `the weight ${weight}`,
    service: `labels: {${USE}: w, ${CANARY}: v}, annotations: {${WEIGHT}: "${weight}"}`,
    weights: [],
  })),
  { name: "itself", service: `labels: {${USE}: w, ${CANARY}: w}`, weights: [] },
  { name: "one that is not there", service: `labels: {${USE}: w, ${CANARY}: x}`, weights: [] },
  { name: "no first waypoint", service: `labels: {${CANARY}: v}`, weights: [] },
  {
    name: "both from the namespace",
    text: namespaceYaml(`labels: {${USE}: w, ${CANARY}: v}, annotations: {${WEIGHT}: "25"}`),
    service: "labels: {}",
    weights: [
      ["w", 75],
      ["v", 25],
    ],
  },
  {
    name: "only the canary from the namespace",
    text: namespaceYaml(`labels: {${CANARY}: v}, annotations: {${WEIGHT}: "25"}`),
    service: `labels: {${USE}: w}`,
    weights: [],
  },
];

for (const { name, text = "", service, weights } of CANARIES) {
  test(`a canary with ${name} makes the weights ${JSON.stringify(weights)}`, () => {
    const { services } = meshOf(
      `${waypointYaml("w")}${waypointYaml("v")}${text}${serviceYaml("a", service)}`,
    );
    const made = services.get("shop/a.shop.svc.cluster.local")?.weightedWaypoints;
    assert.deepEqual(
      made?.map(({ destination, weight }) => [nameOf(destination), weight]),
      weights,
    );
  });
}
