/** Gateways of the Gateway API, as far as a mesh on layer 4 looks at them. */
import type { KubernetesFields } from "./kubernetes-fields.ts";
import {
  type KubernetesMetadata,
  type LabelSelector,
  readLabelSelector,
} from "./kubernetes-metadata.ts";

export const WAYPOINT_CLASS = "istio-waypoint";
export const REMOTE_CLASS = "istio-remote";

export interface Gateway extends KubernetesMetadata {
  readonly className: string;
  readonly listeners: readonly GatewayListener[];
  /** That its author gave it. */
  readonly wanted: readonly GatewayAddressText[];
  /** That a controller gave it. */
  readonly given: readonly GatewayAddressText[];
}

export interface GatewayListener {
  readonly port: number;
  readonly protocol: string;
  readonly from: "All" | "Same" | "Selector" | "None";
  readonly namespaceSelector: LabelSelector;
}

export interface GatewayAddressText {
  readonly type: "IPAddress" | "Hostname" | "other";
  readonly value: string;
}

export function readGateway(metadata: KubernetesMetadata, fields: KubernetesFields): Gateway {
  const spec = fields.fields("spec");
  return {
    ...metadata,
    className: spec.text("gatewayClassName"),
    listeners: spec.list("listeners").map(readListener),
    wanted: spec.list("addresses").map(readAddress),
    given: fields.fields("status").list("addresses").map(readAddress),
  };
}

function readListener(fields: KubernetesFields): GatewayListener {
  const namespaces = fields.fields("allowedRoutes").fields("namespaces");
  return {
    port: fields.port("port"),
    protocol: fields.text("protocol"),
    from: namespaces.choice("from", ["All", "Same", "Selector", "None"], "Same"),
    namespaceSelector: readLabelSelector(namespaces.fields("selector")),
  };
}

function readAddress(fields: KubernetesFields): GatewayAddressText {
  const type = fields.text("type");
  return {
    // The apiserver's default.
    type: type === "" || type === "IPAddress" ? "IPAddress" : type === "Hostname" ? type : "other",
    value: fields.text("value"),
  };
}
