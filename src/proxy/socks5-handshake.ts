/**
 * What a client of SOCKS5 says before its bytes: where it wants to go. Only CONNECT without
 * authentication.
 *
 * @see RFC 1928 and spec data-path 9, whose answers differ: one for every breach of the rules.
 */
import type { SocketEnd } from "../engine/engine.ts";
import { EngineError } from "../engine/engine-error.ts";
import { ipAddressFromBytes } from "../mesh/ip-address.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";
import { invariant } from "../runtime/invariant.ts";

const VERSION = 5;
const NO_AUTHENTICATION = 0;
const CONNECT = 1;
const ADDRESS_BYTES: ReadonlyMap<number, number> = new Map([
  [1, 4],
  [4, 16],
]);
const HOST_NAME = 3;

/** Codes of an answer. */
const REPLY = { success: 0, generalFailure: 1, commandNotSupported: 7 } as const;

/** Why a client does not get its connection; it has been told. */
export class Socks5Error extends Error {
  override readonly name = "Socks5Error";
}

/**
 * Settles when the client has been told that it is connected, which nobody is yet.
 *
 * @throws Socks5Error
 */
export async function shakeHands(end: SocketEnd): Promise<SocketAddress> {
  try {
    const target = await readTarget(end);
    reply(end, REPLY.success);
    return target;
  } catch (error) {
    if (error instanceof EngineError) {
      reply(end, REPLY.generalFailure);
      throw new Socks5Error(error.message, { cause: error });
    }
    if (error instanceof Socks5Error) reply(end, REPLY.commandNotSupported);
    throw error;
  }
}

/** Asks for no byte before the ones before it are good. */
async function readTarget(end: SocketEnd): Promise<SocketAddress> {
  const [version, methodCount = 0] = await end.readFirst(2);
  if (version !== VERSION) throw new Socks5Error(`invalid version ${version}`);
  if (methodCount === 0) throw new Socks5Error("no authentication method");
  const methods = await end.readFirst(methodCount);
  if (!methods.includes(NO_AUTHENTICATION)) {
    throw new Socks5Error(`unsupported authentication methods ${methods.join(", ")}`);
  }
  end.writeFirst(Uint8Array.of(VERSION, NO_AUTHENTICATION));

  const [requestVersion, command] = await end.readFirst(2);
  if (requestVersion !== VERSION) throw new Socks5Error(`invalid version ${requestVersion}`);
  if (command !== CONNECT) throw new Socks5Error(`unsupported command ${command}`);
  const [, addressType = 0] = await end.readFirst(2);
  const byteCount = ADDRESS_BYTES.get(addressType);
  if (addressType === HOST_NAME) throw new Socks5Error("host names need the DNS proxy");
  if (byteCount === undefined) throw new Socks5Error(`unsupported address type ${addressType}`);
  const ip = ipAddressFromBytes(await end.readFirst(byteCount));
  invariant(ip !== undefined, "4 or 16 bytes are an address");
  const [high = 0, low = 0] = await end.readFirst(2);
  return { ip, port: high * 256 + low };
}

/** Where the connection comes from is said to be 0.0.0.0:0: clients do not look. */
function reply(end: SocketEnd, code: number): void {
  end.writeFirst(Uint8Array.of(VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0));
}
