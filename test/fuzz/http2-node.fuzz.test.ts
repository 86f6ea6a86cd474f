/** Node's HTTP/2 (nghttp2) as the other side: what it says we must understand, and the reverse. */
import assert from "node:assert/strict";
import { once } from "node:events";
import {
  type ClientHttp2Session,
  connect,
  constants,
  type Http2Session,
  performServerHandshake,
  type SessionOptions,
  sensitiveHeaders,
} from "node:http2";
import { Duplex } from "node:stream";
import { buffer } from "node:stream/consumers";
import fc from "fast-check";
import { Side, type Stream } from "../http2/side.ts";
import { afterTurn } from "../support/turn.ts";
import { fuzz, record } from "./fuzz.ts";

/** The wire between a side and a session of Node. */
class Wire extends Duplex {
  readonly #side: Side;
  readonly #pieceBytes: number;
  readonly #afterwards: () => void;

  constructor(side: Side, pieceBytes: number, afterwards: () => void) {
    super();
    this.#side = side;
    this.#pieceBytes = pieceBytes;
    this.#afterwards = afterwards;
  }

  /** Lets Node hear what the side has said. */
  carry(): void {
    this.#afterwards();
    const bytes = this.#side.said();
    if (bytes.length > 0 && !this.destroyed) this.push(bytes);
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#side.hear(chunk, this.#pieceBytes);
    this.carry();
    done();
  }

  override _read(): void {
    // It is pushed when there is something.
  }
}

/** Bytes of streams on their way out, as far as the windows let them. */
class Outbox {
  readonly #side: Side;
  readonly #queues = new Map<Stream, { bytes: Buffer; ends: boolean }>();

  constructor(side: Side) {
    this.#side = side;
  }

  put(stream: Stream, bytes: Buffer, ends: boolean): void {
    const queue = this.#queues.get(stream) ?? { bytes: Buffer.alloc(0), ends: false };
    this.#queues.set(stream, {
      bytes: Buffer.concat([queue.bytes, bytes]),
      ends: queue.ends || ends,
    });
  }

  flush(): void {
    for (const [stream, queue] of this.#queues) {
      const sent = this.#side.send(stream, queue.bytes);
      queue.bytes = queue.bytes.subarray(sent);
      if (queue.bytes.length > 0 || !queue.ends) continue;
      this.#queues.delete(stream);
      this.#side.connection.end(stream);
    }
  }
}

/** A goodbye takes Node two or three turns. */
const TURNS_MAX = 1000;

type Fields = readonly (readonly [name: string, value: string])[];

interface Exchange {
  readonly request: Fields;
  readonly response: Fields;
  readonly payload: Buffer;
}

interface Peer {
  readonly headerTableSize: number;
  readonly initialWindowSize: number;
  readonly maxFrameSize: number;
  readonly paddingStrategy: number;
}

/** What Node changes its mind about while streams are on their way. */
interface Change {
  readonly headerTableSize: number;
  readonly initialWindowSize: number;
}

interface Ours {
  readonly streamWindowBytes: number;
  readonly pieceBytes: number;
}

const name = fc.oneof(
  fc.constantFrom("baggage", "forwarded", "traceparent"),
  fc.stringMatching(/^x-[a-z0-9-]{1,12}$/),
);
const value = fc.stringMatching(/^(?:[!-~](?:[ -~]{0,120}[!-~])?)?$/);
const fields = fc.array(fc.tuple(name, value), { maxLength: 8 });
const payload = fc.oneof(fc.nat(100), fc.nat(20_000)).map((length) => pattern(length));

const exchange = record<Exchange>({ request: fields, response: fields, payload });
const peer = record<Peer>({
  headerTableSize: fc.constantFrom(0, 100, 4096, 65_536),
  initialWindowSize: fc.constantFrom(1000, 65_535, 1_000_000),
  maxFrameSize: fc.constantFrom(16_384, 20_000),
  paddingStrategy: fc.constantFrom(
    constants.PADDING_STRATEGY_NONE,
    constants.PADDING_STRATEGY_MAX,
    constants.PADDING_STRATEGY_CALLBACK,
  ),
});
const change = record<Change>({
  headerTableSize: fc.constantFrom(0, 100, 4096),
  initialWindowSize: fc.constantFrom(300, 20_000, 200_000),
});
const ours = record<Ours>({
  streamWindowBytes: fc.constantFrom(3000, 65_535, 1_000_000),
  pieceBytes: fc.constantFrom(7, 1000, 100_000),
});

function sessionOptions({ paddingStrategy, ...settings }: Peer): SessionOptions {
  return { paddingStrategy, settings };
}

async function serveNode(
  exchanges: readonly Exchange[],
  theirs: Peer,
  later: Change,
  { streamWindowBytes, pieceBytes }: Ours,
): Promise<void> {
  const side = new Side("server", { streamWindowBytes });
  const outbox = new Outbox(side);
  const heads = new Map<number, string | undefined>();
  side.react = {
    requested: (stream) => {
      heads.set(stream.id, side.events.at(-1));
      side.connection.respond(stream, 200, exchanges[(stream.id - 1) / 2]?.response ?? []);
    },
    data: (stream, bytes) => {
      outbox.put(stream, bytes, false);
      side.connection.taken(stream, bytes.length);
    },
    ended: (stream) => outbox.put(stream, Buffer.alloc(0), true),
  };
  const wire = new Wire(side, pieceBytes, () => outbox.flush());
  side.connection.start();
  const session: ClientHttp2Session = connect("http://unused", {
    ...sessionOptions(theirs),
    createConnection: () => wire,
  });
  wire.carry();
  const running = Promise.all(
    exchanges.map(async ({ request, response, payload: sent }, i) => {
      const stream = session.request({
        ":method": "CONNECT",
        ":authority": `10.0.0.${i}:80`,
        ...byName(request),
        [sensitiveHeaders]: ["forwarded"],
      });
      stream.end(sent);
      const [headers] = (await once(stream, "response")) as [Record<string, string>];
      assert((await buffer(stream)).equals(sent), `stream ${stream.id} is changed`);
      assert.deepEqual(regular(headers), joined(response, ", "));
      const expected = JSON.stringify(joined(Object.entries(byName(request)).flatMap(spread)));
      assert.equal(
        heads.get(stream.id ?? 0),
        `requested ${stream.id} CONNECT 10.0.0.${i}:80 ${expected}`,
      );
    }),
  );
  session.once("remoteSettings", () => session.settings(later));
  await running;
  assert.equal(side.connection.streamCount, 0);
  await leave(session, side, wire);
  assert.equal(side.events.at(-1), "finished");
}

async function callNode(
  exchanges: readonly Exchange[],
  theirs: Peer,
  later: Change,
  { streamWindowBytes, pieceBytes }: Ours,
): Promise<void> {
  const side = new Side("client", { streamWindowBytes });
  const outbox = new Outbox(side);
  const received = new Map<number, Buffer[]>();
  const allEnded = Promise.withResolvers<void>();
  let endedCount = 0;
  side.react = {
    data: (stream, bytes) => {
      received.set(stream.id, [...(received.get(stream.id) ?? []), bytes]);
      side.connection.taken(stream, bytes.length);
    },
    ended: () => {
      endedCount += 1;
      if (endedCount === exchanges.length) allEnded.resolve();
    },
  };
  const wire = new Wire(side, pieceBytes, () => outbox.flush());
  const session = performServerHandshake(wire, sessionOptions(theirs));
  const heads: (readonly string[])[] = [];
  session.on("stream", (stream, _headers, _flags, raw) => {
    const i = heads.push(raw as unknown as readonly string[]) - 1;
    const list = [[":status", "200"], ...(exchanges[i]?.response ?? [])].flat();
    stream.respond(list, { sendDate: false } as object);
    if (i === 0) session.settings(later);
    stream.pipe(stream);
  });
  side.connection.start();
  exchanges.forEach(({ request, payload: bytes }, i) => {
    const stream = side.connection.open(`10.0.0.${i}:80`, request, "");
    assert(stream !== undefined);
    outbox.put(stream, bytes, true);
  });
  wire.carry();
  await allEnded.promise;
  exchanges.forEach(({ request, response, payload: sent }, i) => {
    const pseudo = [":method", "CONNECT", ":authority", `10.0.0.${i}:80`];
    assert.deepEqual(heads[i], [...pseudo, ...request.flat()]);
    const id = 2 * i + 1;
    assert(Buffer.concat(received.get(id) ?? []).equals(sent), `stream ${id} is changed`);
    const head = `responded ${id} 200 ${JSON.stringify(joined(response))}`;
    assert(side.events.includes(head), head);
  });
  await leave(session, side, wire);
  assert.equal(side.events.at(-1), "finished");
}

const exchanges = fc.array(exchange, { minLength: 1, maxLength: 4 });

// The first run of each is ten times as slow as the next; a property's time must not go into it.
const [example] = fc.sample(fc.tuple(exchanges, peer, change, ours), { numRuns: 1, seed: 1 });
assert(example !== undefined);
await serveNode(...example);
await callNode(...example);

fuzz(
  "Node as client is understood and understands",
  fc.asyncProperty(exchanges, peer, change, ours, serveNode),
);
fuzz(
  "Node as server is understood and understands",
  fc.asyncProperty(exchanges, peer, change, ours, callNode),
);

/** Says goodbye from Node's side and lets go of everything. */
async function leave(session: Http2Session, side: Side, wire: Wire): Promise<void> {
  const closed = once(session, "close");
  session.goaway(0);
  for (let turn = 0; turn < TURNS_MAX && side.events.at(-1) !== "finished"; turn++) {
    await new Promise<void>(afterTurn);
    wire.carry();
  }
  session.destroy();
  await closed;
}

function pattern(length: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, i) => (i * 31 + (i >> 8)) & 0xff));
}

/** As Node takes them. */
function byName(list: readonly (readonly [string, string])[]): Record<string, string[]> {
  const headers: Record<string, string[]> = {};
  for (const [field, text] of list) headers[field] = [...(headers[field] ?? []), text];
  return headers;
}

function spread([field, values]: readonly [string, readonly string[]]): [string, string][] {
  return values.map((text) => [field, text]);
}

function joined(
  list: readonly (readonly [string, string])[],
  separator = ",",
): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [field, text] of list) {
    headers[field] = field in headers ? `${headers[field]}${separator}${text}` : text;
  }
  return headers;
}

function regular(headers: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).filter(([field]) => !field.startsWith(":")));
}
