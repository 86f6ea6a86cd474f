/**
 * What services say in the extensions that the mesh's protocol has room for: so far, for how long a
 * client stays with one endpoint, for which it has no field. The original reads over it.
 */
import { decodeMessage, encodeMessage } from "./message-codec.ts";
import { UInt32Value } from "./proto/google-protobuf.ts";
import type { Extension } from "./proto/istio-workload.ts";
import { WireError } from "./wire-error.ts";

const AFFINITY = "ztunnel/client-ip-affinity-seconds";
const NUMBER_TYPE = "type.googleapis.com/google.protobuf.UInt32Value";

/** @param affinitySeconds see `Service`. */
export function encodeServiceExtensions(affinitySeconds: number | undefined): Extension[] {
  if (affinitySeconds === undefined) return [];
  const value = encodeMessage(UInt32Value, { value: affinitySeconds });
  return [{ name: AFFINITY, config: { typeUrl: NUMBER_TYPE, value } }];
}

/**
 * Reads over those of others.
 *
 * @returns `affinitySeconds` of the service.
 * @throws WireError
 */
export function decodeServiceExtensions(extensions: readonly Extension[]): number | undefined {
  const config = extensions.find(({ name }) => name === AFFINITY)?.config;
  if (config === undefined) return undefined;
  if (config.typeUrl !== NUMBER_TYPE) {
    throw new WireError("malformed", `${AFFINITY} is ${config.typeUrl}, not ${NUMBER_TYPE}`);
  }
  return decodeMessage(AFFINITY, UInt32Value, config.value).value;
}
