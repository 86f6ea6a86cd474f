/**
 * The header of the PROXY protocol, version 2: who calls, and whom, told to an application before the
 * first byte.
 *
 * @see https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt section 2.2, and spec data-path 4.6.
 */
import { ipAddressToBytes, ipFamily } from "../mesh/ip-address.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";

const SIGNATURE = Buffer.from("0d0a0d0a000d0a515549540a", "hex");
/** Version 2, and the connection is somebody else's. */
const PROXY_COMMAND = 0x21;
/** Address family in the upper half, TCP in the lower; 0 is no family. */
const TCP = { 4: 0x11, 6: 0x21, none: 0x01 } as const;
/** The type that the mesh gives the peer's SPIFFE ID. */
const IDENTITY_TYPE = 0xd0;

export interface ProxyHeader {
  readonly source: SocketAddress;
  readonly destination: SocketAddress;
  /** SPIFFE ID of the source; `undefined` when it proved none. */
  readonly identity: string | undefined;
}

/** Addresses are left out when they are of two families. */
export function encodeProxyHeader({ source, destination, identity }: ProxyHeader): Uint8Array {
  const family = ipFamily(source.ip);
  const isOneFamily = family === ipFamily(destination.ip);
  const addresses = isOneFamily
    ? [
        ...[source, destination].map(({ ip }) => ipAddressToBytes(ip)),
        ...[source, destination].map(({ port }) => uint16(port)),
      ]
    : [];
  const uri = Buffer.from(identity ?? "");
  const extra = identity === undefined ? [] : [Buffer.of(IDENTITY_TYPE), uint16(uri.length), uri];
  const body = Buffer.concat([...addresses, ...extra]);
  const kind = Buffer.of(PROXY_COMMAND, isOneFamily ? TCP[family] : TCP.none);
  return Buffer.concat([SIGNATURE, kind, uint16(body.length), body]);
}

function uint16(value: number): Uint8Array {
  return Buffer.of(value >> 8, value & 0xff);
}
