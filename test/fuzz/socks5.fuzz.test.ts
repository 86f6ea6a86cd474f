/** A client of SOCKS5 may say anything, and a DNS server answer anything. */
import assert from "node:assert/strict";
import { encode } from "dns-packet";
import fc from "fast-check";
import type { SocketEnd } from "../../src/engine/engine.ts";
import { EngineError } from "../../src/engine/engine-error.ts";
import { type IpAddress, ipAddressFromBytes, parseIpAddress } from "../../src/mesh/ip-address.ts";
import { Socks5Error, shakeHands } from "../../src/proxy/socks5-handshake.ts";
import { readAddresses } from "../../src/wire/address-question.ts";
import { WireError } from "../../src/wire/wire-error.ts";
import { fuzz, lawful, mutated } from "./fuzz.ts";

const FOUND = "10.0.0.9" as IpAddress;

interface Request {
  readonly bytes: Uint8Array;
  readonly ip: IpAddress | undefined;
  readonly port: number;
}

const methods = fc
  .uint8Array({ minLength: 0, maxLength: 20 })
  .map((others) => Uint8Array.of(0, ...others));
const host = fc.oneof(
  fc.uint8Array({ minLength: 4, maxLength: 4 }).map((ip) => [1, ...ip]),
  fc.uint8Array({ minLength: 16, maxLength: 16 }).map((ip) => [4, ...ip]),
  fc.string({ unit: "grapheme", maxLength: 40 }).map((name) => {
    const bytes = Buffer.from(name);
    return [3, bytes.length, ...bytes];
  }),
);
const request: fc.Arbitrary<Request> = fc
  .tuple(methods, host, fc.nat(65_535))
  .map(([asked, address, port]) => {
    const [type, ...rest] = address;
    return {
      bytes: Uint8Array.of(
        ...[5, asked.length, ...asked],
        ...[5, 1, 0, ...address, port >> 8, port & 0xff],
      ),
      ip:
        type === 3
          ? (parseIpAddress(Buffer.from(rest.slice(1)).toString()) ?? FOUND)
          : ipAddressFromBytes(Uint8Array.from(rest)),
      port,
    };
  });

fuzz(
  "a good SOCKS5 request is understood, and nothing behind it is read",
  fc.asyncProperty(request, fc.uint8Array({ maxLength: 10 }), async (good, behind) => {
    const client = new Client(Uint8Array.of(...good.bytes, ...behind));
    const { ip, port } = await shakeHands(client.end, async () => FOUND);
    assert.deepEqual([ip, port], [good.ip, good.port]);
    assert.deepEqual(client.heard, [5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert.equal(client.readCount, good.bytes.length);
  }),
);

fuzz(
  "whatever else a client says, it gets one answer",
  fc.asyncProperty(
    fc.oneof(mutated(request.map(({ bytes }) => bytes)), fc.uint8Array({ maxLength: 40 })),
    async (bytes) => {
      const client = new Client(bytes);
      const outcome = await shakeHands(client.end, async () => FOUND).catch((error: unknown) => {
        assert.ok(error instanceof Socks5Error, String(error));
        return error;
      });
      const code = outcome instanceof Socks5Error ? outcome.code : 0;
      assert.deepEqual(client.heard.slice(-10), [5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
      assert.ok(client.heard.length === 10 || client.heard.length === 12);
    },
  ),
);

const reply = fc
  .record({ id: fc.nat(65_535), ips: fc.array(fc.ipV4(), { maxLength: 5 }) })
  .map(({ id, ips }) =>
    encode({
      ...{ type: "response", id },
      questions: [{ name: "a.b", type: "A" }],
      answers: ips.map((data) => ({ name: "a.b", type: "A", ttl: 1, data })),
    }),
  );

fuzz(
  "a reply of DNS is read as addresses or a WireError",
  fc.property(fc.oneof(mutated(reply), fc.uint8Array({ maxLength: 80 })), (bytes) => {
    const read = lawful(
      () => readAddresses(bytes),
      (error) => error instanceof WireError,
    );
    for (const ip of read ?? []) assert.equal(parseIpAddress(ip), ip);
  }),
);

/** Says everything at once and leaves. */
class Client {
  readonly heard: number[] = [];
  readCount = 0;
  readonly end: SocketEnd;

  constructor(bytes: Uint8Array) {
    const unused = (): never => assert.fail("the handshake does not end the connection");
    const address = { ip: FOUND, port: 1 };
    this.end = {
      ...{ local: address, peer: address, originalDestination: address },
      readFirst: async (byteCount) => {
        const read = bytes.slice(this.readCount, this.readCount + byteCount);
        this.readCount += read.length;
        if (read.length < byteCount) throw new EngineError("disconnected", "early eof");
        return read;
      },
      writeFirst: (said) => this.heard.push(...said),
      close: unused,
      reset: unused,
    };
  }
}
