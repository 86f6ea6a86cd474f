/** The other end of the PROXY protocol, version 2, as an application reads it. */
import { ipAddressFromBytes } from "../../src/mesh/ip-address.ts";
import { formatHostPort } from "../../src/mesh/socket-address.ts";

export interface ReadProxyHeader {
  /** `ip:port`, `[ip]:port`; empty when the header has no addresses. */
  readonly source: string;
  readonly destination: string;
  /** The mesh's TLV 0xD0. */
  readonly identity: string | undefined;
  /** Where the payload begins. */
  readonly length: number;
}

/** @returns `undefined` until all of it is there. @throws when it is none. */
export function readProxyHeader(bytes: Buffer): ReadProxyHeader | undefined {
  if (bytes.length < 16) return undefined;
  const start = bytes.subarray(0, 13).toString("hex");
  if (start !== "0d0a0d0a000d0a515549540a21") throw new Error(`no PROXY header: ${start}`);
  const length = 16 + bytes.readUInt16BE(14);
  if (bytes.length < length) return undefined;
  const kind = bytes[13];
  const ipBytes = kind === 0x11 ? 4 : kind === 0x21 ? 16 : 0;
  const address = (ipAt: number, portAt: number): string => {
    const ip = ipAddressFromBytes(bytes.subarray(ipAt, ipAt + ipBytes));
    return formatHostPort(ip ?? "", bytes.readUInt16BE(portAt));
  };
  let at = 16;
  let [source, destination] = ["", ""];
  if (ipBytes > 0) {
    source = address(16, 16 + 2 * ipBytes);
    destination = address(16 + ipBytes, 18 + 2 * ipBytes);
    at += 2 * ipBytes + 4;
  }
  let identity: string | undefined;
  while (at < length) {
    const valueLength = bytes.readUInt16BE(at + 1);
    if (bytes[at] === 0xd0) identity = bytes.toString("utf8", at + 3, at + 3 + valueLength);
    at += 3 + valueLength;
  }
  return { source, destination, identity, length };
}
