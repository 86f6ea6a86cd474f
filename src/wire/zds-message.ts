/**
 * The packets between the node agent and the proxy (ZDS): one protobuf message each, no framing.
 * The namespace descriptor that travels with an add is not part of the bytes.
 *
 * @see spec data-path 11.2, control-plane 2.4.
 */
import { decodeMessage, encodeMessage } from "./message-codec.ts";
import {
  Version,
  WorkloadRequest,
  WorkloadResponse,
  ZdsHello,
} from "./proto/istio-workload-zds.ts";
import { WireError } from "./wire-error.ts";

/** Agent to proxy. */
export type ZdsRequest =
  | {
      readonly kind: "add";
      readonly uid: string;
      /** An add without it breaks the protocol; that is for the session to judge. */
      readonly workload: ZdsWorkload | undefined;
    }
  | { readonly kind: "del"; readonly uid: string }
  /** The pod is known already, its namespace comes no more. */
  | { readonly kind: "keep"; readonly uid: string }
  /** All pods of the node have been named. */
  | { readonly kind: "snapshot-sent" };

export interface ZdsWorkload {
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** The proxy's answer to each request; an empty text is success. */
export interface ZdsAck {
  readonly error: string;
}

/** The proxy's first packet, version 1. */
export function encodeZdsHello(): Uint8Array {
  return encodeMessage(ZdsHello, { version: Version.V1 });
}

/**
 * @returns the version; 1 is the only one that exists.
 * @throws WireError `malformed`.
 */
export function decodeZdsHello(bytes: Uint8Array): number {
  return decodeMessage("ZdsHello", ZdsHello, bytes).version;
}

export function encodeZdsRequest(request: ZdsRequest): Uint8Array {
  return encodeMessage(WorkloadRequest, { payload: requestPayload(request) });
}

/** @throws WireError `malformed`, or `incomplete` with the text `no payload`. */
export function decodeZdsRequest(bytes: Uint8Array): ZdsRequest {
  const { payload } = decodeMessage("WorkloadRequest", WorkloadRequest, bytes);
  switch (payload?.$case) {
    case "add": {
      const { uid, workloadInfo } = payload.value;
      return { kind: "add", uid, workload: workloadInfo };
    }
    case "del":
      return { kind: "del", uid: payload.value.uid };
    case "keep":
      return { kind: "keep", uid: payload.value.uid };
    case "snapshotSent":
      return { kind: "snapshot-sent" };
    case undefined:
      throw new WireError("incomplete", "no payload");
  }
}

/** @param error empty for success. */
export function encodeZdsAck(error: string): Uint8Array {
  return encodeMessage(WorkloadResponse, { payload: { $case: "ack", value: { error } } });
}

/** @throws WireError `malformed`, or `incomplete` with the text `no payload`. */
export function decodeZdsAck(bytes: Uint8Array): ZdsAck {
  const { payload } = decodeMessage("WorkloadResponse", WorkloadResponse, bytes);
  if (payload === undefined) throw new WireError("incomplete", "no payload");
  return payload.value;
}

function requestPayload(request: ZdsRequest): NonNullable<WorkloadRequest["payload"]> {
  switch (request.kind) {
    case "add":
      return { $case: "add", value: { uid: request.uid, workloadInfo: request.workload } };
    case "del":
      return { $case: "del", value: { uid: request.uid } };
    case "keep":
      return { $case: "keep", value: { uid: request.uid } };
    case "snapshot-sent":
      return { $case: "snapshotSent", value: {} };
  }
}
