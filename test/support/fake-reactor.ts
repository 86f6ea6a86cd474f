/** A reactor without sockets: a test says what happens and looks at what was to be done. */
import { OPERATION, type Reactor, type ReactorOptions } from "../../src/net/reactor.ts";

export const FAKE_REACTOR_OPTIONS: ReactorOptions = {
  arenaBytes: 65_536,
  scratchBytes: 20_000,
  eventsMax: 64,
  operationsMax: 64,
  connectionsMax: 64,
  plainReadBytes: 4096,
  cipherReadBytes: 4096,
  cipherSendBytes: 4096,
  acceptsPerTurn: 4,
  queueBytesMax: 65_536,
  rekeyBytes: 1_000_000,
};

const ENTRY_LENGTH = 4;

/** What was done, in words: `write 3 hello`, `close 3`. */
export class FakeReactor implements Reactor {
  readonly arena: Uint8Array;
  readonly events: Int32Array;
  readonly operations: Int32Array;
  readonly pending: Int32Array = new Int32Array(65_536);
  readonly credit: Int32Array = new Int32Array(65_536);
  /** One array for each time that operations were performed. */
  readonly performed: string[][] = [];
  isClosed = false;
  readonly #turn: (eventCount: number) => void;

  constructor(options: ReactorOptions, turn: (eventCount: number) => void) {
    this.arena = new Uint8Array(options.arenaBytes + options.scratchBytes);
    this.events = new Int32Array(options.eventsMax * ENTRY_LENGTH);
    this.operations = new Int32Array(options.operationsMax * ENTRY_LENGTH);
    this.#turn = turn;
  }

  /** One turn in which this happens: kind, id, a, b. */
  happen(
    ...events: readonly (readonly [kind: number, id: number, a?: number, b?: number])[]
  ): void {
    for (const [i, [kind, id, a = 0, b = 0]] of events.entries()) {
      this.events.set([kind, id, a, b], i * ENTRY_LENGTH);
    }
    this.#turn(events.length);
  }

  flush(operationCount: number): void {
    this.#perform(operationCount);
  }

  close(): void {
    this.isClosed = true;
  }

  listen(): number {
    return 1;
  }

  connect(): number {
    throw new Error("nothing is connected");
  }

  pair(): never {
    throw new Error("nothing is connected");
  }

  fdOf(): number {
    throw new Error("there are no descriptors");
  }

  startTls(): void {
    throw new Error("there is no TLS");
  }

  peerChain(): Uint8Array {
    return new Uint8Array();
  }

  #perform(count: number): void {
    if (count === 0) return;
    this.performed.push(
      Array.from({ length: count }, (_, i) => {
        const [kind = 0, id = 0, a = 0, b = 0] = this.operations.subarray(i * ENTRY_LENGTH);
        const name = NAMES.get(kind) ?? `operation ${kind}`;
        if (kind !== OPERATION.WRITE) return `${name} ${id}`;
        return `${name} ${id} ${Buffer.from(this.arena.subarray(a, a + b)).toString("latin1")}`;
      }),
    );
  }
}

const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(OPERATION).map(([name, number]) => [number, name.toLowerCase()]),
);
