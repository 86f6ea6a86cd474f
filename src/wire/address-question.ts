/** DNS from the side of a client: one question, and the addresses that came back. */
import { decode, encode, type Packet, RECURSION_DESIRED } from "dns-packet";
import { type IpAddress, parseIpAddress } from "../mesh/ip-address.ts";
import { WireError } from "./wire-error.ts";

const LABEL_BYTES_MAX = 63;
const NAME_BYTES_MAX = 253;

/**
 * @param id 16 bits, hard to guess.
 * @throws WireError `malformed` for what can't be a name in DNS.
 */
export function encodeAddressQuestion(id: number, name: string, type: "A" | "AAAA"): Uint8Array {
  const labels = name
    .replace(/\.$/, "")
    .split(".")
    .map((label) => Buffer.byteLength(label));
  const isName = labels.every((length) => length > 0 && length <= LABEL_BYTES_MAX);
  if (!isName || Buffer.byteLength(name) > NAME_BYTES_MAX) {
    throw new WireError("malformed", `no name in DNS: ${name}`);
  }
  const questions = [{ name, type, class: "IN" as const }];
  return encode({ type: "query", id, flags: RECURSION_DESIRED, questions });
}

/**
 * @param reply to a question of {@link encodeAddressQuestion}.
 * @returns in the order of the reply; none for any kind of failure.
 * @throws WireError `malformed`
 */
export function readAddresses(reply: Uint8Array): readonly IpAddress[] {
  let packet: Packet;
  try {
    packet = decode(Buffer.from(reply));
  } catch (cause) {
    throw new WireError("malformed", "undecodable DNS reply", { cause });
  }
  return (packet.answers ?? []).flatMap((record) =>
    record.type === "A" || record.type === "AAAA" ? (parseIpAddress(record.data) ?? []) : [],
  );
}
