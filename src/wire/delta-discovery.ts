/**
 * The discovery service's delta stream, in the shape that a gRPC library takes for client and server.
 *
 * @see spec control-plane 1 and 2.5.
 */
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { decodeMessage, encodeMessage } from "./message-codec.ts";
import {
  DeltaDiscoveryRequest,
  DeltaDiscoveryResponse,
  Resource,
} from "./proto/envoy-service-discovery-v3.ts";
import { WireError } from "./wire-error.ts";

export type {
  DeltaDiscoveryRequest,
  DeltaDiscoveryResponse,
  Resource,
} from "./proto/envoy-service-discovery-v3.ts";

/** A response whose resources may be decoded one by one, each time they are asked for. */
export interface DeltaResponse extends Omit<DeltaDiscoveryResponse, "resources"> {
  /** @throws WireError `malformed` while it is iterated. */
  readonly resources: Iterable<Resource> & { readonly length: number };
}

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

/** Of `DeltaDiscoveryResponse`. */
const RESOURCES_FIELD = 2;

/**
 * As `responseDeserialize`, for a response that may be as large as the mesh: its resources are never
 * decoded all at once.
 *
 * @throws WireError `malformed`
 */
export function decodeDeltaResponse(bytes: Uint8Array): DeltaResponse {
  /** Begin and end of each resource. */
  const places: number[] = [];
  /** What is not a resource. */
  const rest: Uint8Array[] = [];
  try {
    const reader = new BinaryReader(bytes);
    while (reader.pos < reader.len) {
      const start = reader.pos;
      const [field, type] = reader.tag();
      if (field === RESOURCES_FIELD && type === WireType.LengthDelimited) {
        const length = reader.uint32();
        places.push(reader.pos, reader.pos + length);
        reader.pos += length;
      } else {
        reader.skip(type, field);
        rest.push(bytes.subarray(start, reader.pos));
      }
    }
    if (reader.pos > reader.len) throw new RangeError("cut off");
  } catch (cause) {
    throw new WireError("malformed", "undecodable DeltaDiscoveryResponse", { cause });
  }
  const head = decodeMessage("DeltaDiscoveryResponse", DeltaDiscoveryResponse, Buffer.concat(rest));
  const resources = {
    length: places.length / 2,
    *[Symbol.iterator](): Generator<Resource> {
      for (let i = 0; i < places.length; i += 2) {
        yield decodeMessage("Resource", Resource, bytes.subarray(places[i], places[i + 1]));
      }
    },
  };
  return { ...head, resources };
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
