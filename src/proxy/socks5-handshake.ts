/**
 * What a client of SOCKS5 says before its bytes: where it wants to go. Only CONNECT without
 * authentication.
 *
 * @see RFC 1928 and spec data-path 9, whose answers differ: one for every breach of the rules.
 */
import type { SocketEnd } from "../engine/engine.ts";
import { EngineError } from "../engine/engine-error.ts";
import { type IpAddress, ipAddressFromBytes, parseIpAddress } from "../mesh/ip-address.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";
import { errorText } from "../runtime/error-text.ts";
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
const REPLY = {
  success: 0,
  generalFailure: 1,
  hostUnreachable: 4,
  commandNotSupported: 7,
} as const;

/** Why a client does not get its connection; it has been told. */
export class Socks5Error extends Error {
  override readonly name = "Socks5Error";
  /** What the client was told. */
  readonly code: number;

  constructor(message: string, code: number = REPLY.commandNotSupported, cause?: unknown) {
    super(message, { cause });
    this.code = code;
  }
}

/** An address of a host name, if it has one. Rejects when nobody tells. */
export type FindAddress = (hostname: string) => Promise<IpAddress | undefined>;

/**
 * Settles when the client has been told that it is connected, which nobody is yet.
 *
 * @param findAddress `undefined`: clients must look up names themselves.
 * @throws Socks5Error
 */
export async function shakeHands(
  end: SocketEnd,
  findAddress: FindAddress | undefined,
): Promise<SocketAddress> {
  try {
    const target = await readTarget(end, findAddress);
    reply(end, REPLY.success);
    return target;
  } catch (error) {
    const refusal =
      error instanceof EngineError
        ? new Socks5Error(error.message, REPLY.generalFailure, error)
        : error;
    if (refusal instanceof Socks5Error) reply(end, refusal.code);
    throw refusal;
  }
}

/** Asks for no byte before the ones before it are good. */
async function readTarget(
  end: SocketEnd,
  findAddress: FindAddress | undefined,
): Promise<SocketAddress> {
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
  if (addressType === HOST_NAME) {
    const [length = 0] = await end.readFirst(1);
    const name = hostName(await end.readFirst(length));
    const port = await readPort(end);
    return { ip: parseIpAddress(name) ?? (await lookUp(name, findAddress)), port };
  }
  const byteCount = ADDRESS_BYTES.get(addressType);
  if (byteCount === undefined) throw new Socks5Error(`unsupported address type ${addressType}`);
  const ip = ipAddressFromBytes(await end.readFirst(byteCount));
  invariant(ip !== undefined, "4 or 16 bytes are an address");
  return { ip, port: await readPort(end) };
}

async function readPort(end: SocketEnd): Promise<number> {
  const [high = 0, low = 0] = await end.readFirst(2);
  return high * 256 + low;
}

function hostName(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Socks5Error("the host name is no UTF-8");
  }
}

async function lookUp(name: string, findAddress: FindAddress | undefined): Promise<IpAddress> {
  if (findAddress === undefined) throw new Socks5Error("host names need the DNS proxy");
  let found: IpAddress | undefined;
  try {
    found = await findAddress(name);
  } catch (error) {
    const reason = errorText(error);
    throw new Socks5Error(`${name}: ${reason}`, REPLY.hostUnreachable, error);
  }
  if (found === undefined) throw new Socks5Error(`${name} has no address`, REPLY.hostUnreachable);
  return found;
}

/** Where the connection comes from is said to be 0.0.0.0:0: clients do not look. */
function reply(end: SocketEnd, code: number): void {
  end.writeFirst(Uint8Array.of(VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0));
}
