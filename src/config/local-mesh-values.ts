/** Values of the mesh file that several of its resources have. */
import { type Cidr, parseCidr } from "../mesh/cidr.ts";
import type { NetworkAddress } from "../mesh/gateway-address.ts";
import { type IpAddress, parseIpAddress } from "../mesh/ip-address.ts";
import type { NetworkCidr } from "../mesh/service.ts";
import type { PortMap } from "../mesh/workload.ts";
import type { YamlRecord, YamlValue } from "./yaml-record.ts";

export const PORT_MAX = 65535;

export function readPorts(value: YamlValue): PortMap {
  return value.map(
    (key) => key.integer(PORT_MAX),
    (port) => port.integer(PORT_MAX),
  );
}

export function readNetworkAddress(value: YamlValue): NetworkAddress | undefined {
  const text = value.text();
  const address = parseNetworkAddress(text);
  if (address === undefined) value.mistake(`must be network/address, not ${text}`);
  return address;
}

export function parseNetworkAddress(text: string): NetworkAddress | undefined {
  const slash = text.indexOf("/");
  const ip = slash < 0 ? undefined : parseIpAddress(text.slice(slash + 1));
  return ip === undefined ? undefined : { network: text.slice(0, slash), ip };
}

export function readNetworkCidr(value: YamlValue): NetworkCidr | undefined {
  return value.record((record) => {
    const network = requiredText(record, "network");
    const cidr = record.required("cidr", readCidr, undefined);
    return cidr === undefined ? undefined : { network, cidr };
  });
}

export function readCidr(value: YamlValue): Cidr | undefined {
  const text = value.text();
  const cidr = parseCidr(text);
  if (cidr === undefined) value.mistake(`must be an address range such as 10.0.0.0/8, not ${text}`);
  return cidr;
}

export function readIp(value: YamlValue): IpAddress | undefined {
  const text = value.text();
  const ip = parseIpAddress(text);
  if (ip === undefined) value.mistake(`must be an IP address, not ${text}`);
  return ip;
}

export function requiredText(record: YamlRecord, key: string): string {
  return record.required(key, (value) => value.text(), "");
}

export function optionalText(record: YamlRecord, key: string): string {
  return record.optional(key, (value) => value.text()) ?? "";
}

export function readTexts(record: YamlRecord, key: string): string[] {
  return record.optional(key, (list) => list.list((value) => value.text())) ?? [];
}
