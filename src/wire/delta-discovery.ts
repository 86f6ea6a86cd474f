/**
 * The discovery service's delta stream, in the shape that a gRPC library takes for client and server.
 *
 * @see spec control-plane 1 and 2.5.
 */
import { decodeMessage, encodeMessage } from "./message-codec.ts";
import {
  DeltaDiscoveryRequest,
  DeltaDiscoveryResponse,
} from "./proto/envoy-service-discovery-v3.ts";

export type {
  DeltaDiscoveryRequest,
  DeltaDiscoveryResponse,
} from "./proto/envoy-service-discovery-v3.ts";

/** Workloads and services; a resource is bytes of an `istio.workload.Address`. */
export const ADDRESS_TYPE = "type.googleapis.com/istio.workload.Address";
/** Policies; a resource is bytes of an `istio.security.Authorization`. */
export const AUTHORIZATION_TYPE = "type.googleapis.com/istio.security.Authorization";

/**
 * `DeltaAggregatedResources`, a stream both ways: a method definition as @grpc/grpc-js wants it. The
 * deserializers throw WireError `malformed`; `bytes` of a decoded message are views of its buffer.
 */
export const deltaDiscoveryMethod: {
  readonly path: string;
  readonly requestStream: true;
  readonly responseStream: true;
  readonly requestSerialize: (request: DeltaDiscoveryRequest) => Buffer;
  readonly requestDeserialize: (bytes: Uint8Array) => DeltaDiscoveryRequest;
  readonly responseSerialize: (response: DeltaDiscoveryResponse) => Buffer;
  readonly responseDeserialize: (bytes: Uint8Array) => DeltaDiscoveryResponse;
} = {
  path: "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
  requestStream: true,
  responseStream: true,
  requestSerialize: (request) => asBuffer(encodeMessage(DeltaDiscoveryRequest, request)),
  requestDeserialize: (bytes) =>
    decodeMessage("DeltaDiscoveryRequest", DeltaDiscoveryRequest, bytes),
  responseSerialize: (response) => asBuffer(encodeMessage(DeltaDiscoveryResponse, response)),
  responseDeserialize: (bytes) =>
    decodeMessage("DeltaDiscoveryResponse", DeltaDiscoveryResponse, bytes),
};

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
