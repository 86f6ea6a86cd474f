/** The keys under which things of the mesh are found, as the hashes that its indexes hold. */
import type { AuthorizationPolicy, PolicyScope } from "../mesh/authorization.ts";
import type { Cidr } from "../mesh/cidr.ts";
import { formatNetworkAddress } from "../mesh/gateway-address.ts";
import { type IpAddress, ipAddressToBytes } from "../mesh/ip-address.ts";
import type { NetworkCidr, Service } from "../mesh/service.ts";
import type { Workload } from "../mesh/workload.ts";
import { type IndexName, RANGE_COUNTS_V4, RANGE_COUNTS_V6 } from "./mesh-memory.ts";

/** One entry of one index. */
export interface IndexKey {
  readonly index: IndexName;
  readonly hash: number;
}

/** What the node agent knows of a pod. */
export interface LocalWorkloadKey {
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** @returns 32 bits, alike on every thread (FNV-1a, finished as MurmurHash3 is). */
export function hashText(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) {
    hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  }
  return finishHash(hash);
}

/** One hash of two, in their order. */
export function mixHashes(first: number, second: number): number {
  return finishHash(Math.imul(first, 0x9e3779b1) ^ second);
}

function finishHash(state: number): number {
  let hash = state;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

export function addressHash(network: string, ip: IpAddress): number {
  return hashText(formatNetworkAddress(network, ip));
}

export function hostnameHash(namespace: string, hostname: string): number {
  return hashText(`${namespace}/${hostname}`);
}

export function localWorkloadHash({ namespace, serviceAccount, name }: LocalWorkloadKey): number {
  return hashText(`${namespace}/${serviceAccount}/${name}`);
}

/** @param address 4 or 16 bytes, of which the first `prefixLength` bits count. */
export function rangeHash(network: string, address: Uint8Array, prefixLength: number): number {
  let text = `${network}/${address.length}/${prefixLength}`;
  for (let bit = 0; bit < prefixLength; bit += 8) {
    const kept = Math.min(8, prefixLength - bit);
    text += String.fromCharCode((address[bit >> 3] as number) & (0xff << (8 - kept)));
  }
  return hashText(text);
}

/** The word that counts the ranges of one length in one family. */
export function rangeCountAt({ network, prefixLength }: Cidr): number {
  return (network.length === 4 ? RANGE_COUNTS_V4 : RANGE_COUNTS_V6) + prefixLength;
}

/** Of policies that apply without being named by a workload; those that select get `undefined`. */
export function scopeHash(namespace: string, scope: PolicyScope | undefined): number | undefined {
  switch (scope) {
    case "Global":
      return hashText("*");
    case "Namespace":
      return hashText(`namespace/${namespace}`);
    case "WorkloadSelector":
    case undefined:
      return undefined;
  }
}

/** Host-network workloads share the node's addresses, so they can't be told apart by them. */
export function workloadKeys(workload: Workload, isLocal: boolean): readonly IndexKey[] {
  const { uid, namespace, hostname, network, ips, networkMode } = workload;
  const keys: IndexKey[] = [{ index: "workload-by-uid", hash: hashText(uid) }];
  if (networkMode !== "HostNetwork") {
    for (const ip of new Set(ips)) {
      keys.push({ index: "workload-by-address", hash: addressHash(network, ip) });
    }
  }
  if (hostname !== "") {
    keys.push({ index: "workload-by-hostname", hash: hostnameHash(namespace, hostname) });
  }
  if (isLocal) keys.push({ index: "local-workload", hash: localWorkloadHash(workload) });
  return keys;
}

export function serviceKeys(key: string, service: Service): readonly IndexKey[] {
  const vips = new Set(service.vips.map(({ network, ip }) => addressHash(network, ip)));
  const ranges = new Set(service.cidrVips.map(networkCidrHash));
  return [
    { index: "service-by-key", hash: hashText(key) },
    { index: "service-by-hostname", hash: hashText(service.hostname) },
    ...Array.from(vips, (hash) => ({ index: "service-by-vip", hash }) as const),
    ...Array.from(ranges, (hash) => ({ index: "service-by-range", hash }) as const),
  ];
}

export function policyKeys(key: string, policy: AuthorizationPolicy): readonly IndexKey[] {
  const scope = scopeHash(policy.namespace, policy.scope);
  const named: IndexKey = { index: "policy-by-key", hash: hashText(key) };
  return scope === undefined ? [named] : [named, { index: "policy-by-scope", hash: scope }];
}

function networkCidrHash({ network, cidr }: NetworkCidr): number {
  return rangeHash(network, ipAddressToBytes(cidr.ip), cidr.prefixLength);
}
