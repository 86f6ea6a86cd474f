/**
 * The header fields of our CONNECT: who asks, on whose behalf. The baggage of our answer to one is made
 * of the same parts.
 *
 * @see spec data-path 3.3, 4.3.
 */
import type { HeaderFields } from "../engine/engine.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";
import type { Workload } from "../mesh/workload.ts";
import { formatBaggage } from "../wire/baggage.ts";
import { formatForwarded } from "../wire/forwarded.ts";

export interface ConnectRequest {
  /** Of the source; see {@link workloadBaggage}. */
  readonly baggage: string;
  /** Where the application's connection came from. */
  readonly client: SocketAddress;
  /** Host name of the service that was asked for. */
  readonly serviceHostname: string | undefined;
  readonly traceparent: string;
}

/** `baggage`, `forwarded` and `traceparent`, in this order on the wire. */
export function connectHeaders(request: ConnectRequest): HeaderFields {
  return [
    ["baggage", request.baggage],
    ["forwarded", formatForwarded(request.client, request.serviceHostname)],
    ["traceparent", request.traceparent],
  ];
}

/** What a peer is told about a workload of ours, as source or as destination. */
export function workloadBaggage(workload: Workload): string {
  return formatBaggage({
    clusterId: workload.clusterId,
    namespace: workload.namespace,
    workloadType: workload.workloadType,
    workloadName: workload.workloadName,
    canonicalName: workload.canonicalName,
    canonicalRevision: workload.canonicalRevision,
    region: workload.locality.region,
    zone: workload.locality.zone,
  });
}
