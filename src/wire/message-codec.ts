/**
 * The way in and out of the generated protobuf code: strict about text, one error for all bad bytes.
 *
 * @see https://protobuf.dev/programming-guides/encoding
 */
import { BinaryReader, type BinaryWriter } from "@bufbuild/protobuf/wire";
import { errorText } from "../runtime/error-text.ts";
import { WireError } from "./wire-error.ts";

/** What the generator writes for each message. */
export interface MessageCodec<Message> {
  encode(message: Message, writer?: BinaryWriter): BinaryWriter;
  decode(input: BinaryReader | Uint8Array, length?: number): Message;
}

/**
 * Decodes one message that fills the bytes; unknown fields are passed over.
 *
 * `bytes` fields of the result are views of the input, not copies.
 *
 * @param name stands in the error's message.
 * @throws WireError `malformed`.
 */
export function decodeMessage<Message>(
  name: string,
  codec: MessageCodec<Message>,
  bytes: Uint8Array,
): Message {
  try {
    return codec.decode(new BinaryReader(bytes, decodeUtf8));
  } catch (cause) {
    // Generated code throws plain errors of many kinds, all of them about the bytes.
    const reason = errorText(cause);
    throw new WireError("malformed", `undecodable ${name}: ${reason}`, { cause });
  }
}

/** The message's bytes, fields in the order of their numbers in the .proto text. */
export function encodeMessage<Message>(codec: MessageCodec<Message>, message: Message): Uint8Array {
  return codec.encode(message).finish();
}

/** Refuses what is not UTF-8, as other implementations do; the library would replace it. */
function decodeUtf8(bytes: Uint8Array): string {
  return UTF8.decode(bytes);
}

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
