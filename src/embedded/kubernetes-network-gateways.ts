/** Gateways of class istio-remote: the ways into other networks. */
import type { GatewayAddress } from "../wire/proto/istio-workload.ts";
import { parseAddress } from "./kubernetes-addresses.ts";
import { type Gateway, REMOTE_CLASS } from "./kubernetes-gateways.ts";
import { networkLabel } from "./kubernetes-places.ts";

const SERVICE_ACCOUNT_ANNOTATION = "gateway.istio.io/service-account";

/** One address of a gateway. */
export interface NetworkGateway {
  readonly network: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  /** IP address or hostname. */
  readonly address: string;
  /** For HBONE. */
  readonly port: number;
}

/** A gateway without a network label or a listener for HBONE leads nowhere. */
export function networkGatewaysOf(gateway: Gateway): readonly NetworkGateway[] {
  const network = networkLabel(gateway.labels);
  const listener = gateway.listeners.find(({ protocol }) => protocol === "HBONE");
  if (gateway.className !== REMOTE_CLASS || network === "" || listener === undefined) return [];
  return gateway.wanted
    .filter(({ type }) => type !== "other")
    .map(({ value }) => ({
      network,
      namespace: gateway.namespace,
      serviceAccount:
        gateway.annotations.get(SERVICE_ACCOUNT_ANNOTATION) || `${gateway.name}-${REMOTE_CLASS}`,
      address: value,
      port: listener.port,
    }));
}

/** Where workloads of the gateway's network are reached from other networks. */
export function toGatewayAddress(gateway: NetworkGateway): GatewayAddress {
  const { network, namespace, address: text, port } = gateway;
  const address = parseAddress(text);
  return {
    destination:
      address === undefined
        ? { $case: "hostname", value: { namespace, hostname: text } }
        : { $case: "address", value: { network, address } },
    hboneMtlsPort: port,
  };
}
