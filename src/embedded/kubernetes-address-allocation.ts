/**
 * Addresses for hosts that have none: a client can only be captured on its way to an address.
 *
 * One after another and never one that was given before, as istiod does, which keeps them in the
 * status of the service entry. Here the caller keeps them.
 */
import { type IpAddress, parseIpAddress } from "../mesh/ip-address.ts";

/** 240.240.0.0/16 and 2001:2::/48, istiod's defaults; the first and the last are not given. */
const INDEX_MAX = 0xfffe;

/** Key of a host → its addresses, IPv4 first. */
export type AllocatedAddresses = ReadonlyMap<string, readonly IpAddress[]>;

/**
 * @param keys of all hosts that want addresses.
 * @param before what was given until now; what is not asked for any more falls out.
 * @param taken addresses that somebody wrote down for something else.
 * @returns without the hosts for which no address is left.
 */
export function allocateAddresses(
  keys: readonly string[],
  before: AllocatedAddresses,
  taken: ReadonlySet<string>,
): AllocatedAddresses {
  const kept = [...before.values()].flat();
  let index = Math.max(0, ...kept.map(indexOf));
  const allocated = new Map<string, readonly IpAddress[]>();
  for (const key of keys) {
    const known = before.get(key);
    if (known !== undefined) {
      allocated.set(key, known);
      continue;
    }
    do index++;
    while (addressesAt(index).some((ip) => taken.has(ip)));
    if (index <= INDEX_MAX) allocated.set(key, addressesAt(index));
  }
  return allocated;
}

function addressesAt(index: number): readonly IpAddress[] {
  const texts = [`240.240.${index >> 8}.${index & 0xff}`, `2001:2::${index.toString(16)}`];
  return texts.flatMap((text) => parseIpAddress(text) ?? []);
}

/** 0 for an address of another range. */
function indexOf(ip: IpAddress): number {
  const [, third, fourth] = /^240\.240\.(\d+)\.(\d+)$/.exec(ip) ?? [];
  return third === undefined ? 0 : Number(third) * 256 + Number(fourth);
}
