/** The memory that a reactor and JavaScript both see, and how large its parts are. */

/** Limits and sizes; all memory below is taken once, the pages when first touched. */
export interface ReactorOptions {
  /**
   * Where reads go, at the start of the arena. At least `plainReadBytes` and `cipherReadBytes`, each
   * with 32 KiB to spare.
   */
  readonly arenaBytes: number;
  /** Behind the reads: never touched by the reactor, free for what a turn composes to write. */
  readonly scratchBytes: number;
  /** At least 16. */
  readonly eventsMax: number;
  readonly operationsMax: number;
  /** Listeners count; at most 65,535. Beyond it accepting stops with ERROR `EMFILE`. */
  readonly connectionsMax: number;
  /** Most bytes of one plain connection in a turn. */
  readonly plainReadBytes: number;
  /** Most ciphertext of one tunnel in a turn; at least 1 KiB. */
  readonly cipherReadBytes: number;
  /** Most ciphertext of one send, in whole records; what is there at the end of a batch is sent too. */
  readonly cipherSendBytes: number;
  /** Most connections that one listener gives in a turn. */
  readonly acceptsPerTurn: number;
  /**
   * What one connection may hold beyond the kernel's buffer, a tunnel also while it gathers a send; more
   * is ERROR `ENOBUFS`. At least `cipherSendBytes` and 32 KiB.
   */
  readonly queueBytesMax: number;
  /**
   * Bytes that a tunnel encrypts with one key before it moves to the next (RFC 8446 section 4.6.3);
   * at most 1 TiB.
   */
  readonly rekeyBytes: number;
}

/** Views of one memory; a view that is kept beyond the reactor's end is never a dangling one. */
export interface ReactorArrays {
  /** Reads, then scratch. What `turn` was told of is valid until it returns. */
  readonly arena: Uint8Array;
  readonly events: Int32Array;
  readonly operations: Int32Array;
  /**
   * By slot, the low 16 bits of an id: bytes written that the kernel has not taken. Slot 0, which is
   * no connection's, counts the operations that were ignored because their id was dead, their range
   * not in the arena or their moment wrong.
   */
  readonly pending: Int32Array;
  /**
   * By slot: how many bytes the next read of a plain connection may take; 0 stops reading. Set by
   * JavaScript only, 0 for a new connection. Each read is told before the next one begins. Slot 0
   * tells what a batch may read, about: those that are ready share it, each read may take at least
   * 32 KiB and at most `plainReadBytes` or `cipherReadBytes`. At first `arenaBytes`.
   */
  readonly credit: Int32Array;
}

/** What the addon makes a reactor of. */
export interface ReactorMemory {
  readonly arrays: ReactorArrays;
  /** All of it: the numbers in the order of {@link ReactorArrays}, then, at the end, the arena. */
  readonly bytes: Uint8Array;
  /** The options as 64-bit numbers, in the order of {@link RANGES}. */
  readonly sizes: Uint8Array;
}

/** The types of Node know it only with those of a browser. */
declare const WebAssembly: {
  readonly Memory: new (pages: {
    readonly initial: number;
    readonly maximum: number;
  }) => {
    readonly buffer: ArrayBuffer;
  };
};

/** Least and most of each option. */
const RANGES: Readonly<Record<keyof ReactorOptions, readonly [number, number]>> = {
  arenaBytes: [64 * 1024, 2 ** 30],
  scratchBytes: [0, 2 ** 29],
  eventsMax: [16, 2 ** 20],
  operationsMax: [1, 2 ** 20],
  connectionsMax: [1, 0xffff],
  plainReadBytes: [1, 2 ** 29],
  cipherReadBytes: [1024, 2 ** 29],
  cipherSendBytes: [1, 2 ** 29],
  acceptsPerTurn: [1, 2 ** 31 - 1],
  queueBytesMax: [32 * 1024, 2 ** 31 - 1],
  rekeyBytes: [1, 2 ** 40],
};

const OPTION_NAMES = Object.keys(RANGES) as readonly (keyof ReactorOptions)[];

/** Headroom, alignment, and a record that came in pieces. */
const ARENA_SPARE_BYTES = 32 * 1024;

/** Numbers of an event or an operation. */
export const ENTRY_LENGTH = 4;

/** The kernel's on all machines that we run on, or a multiple of it. */
const PAGE_BYTES = 4096;

/** Of WebAssembly. */
const MEMORY_PAGE_BYTES = 64 * 1024;

/**
 * Takes memory that nobody can detach, so that what the addon holds of it never dangles, and that is
 * followed by pages that nobody may touch: WebAssembly's is both.
 *
 * @throws TypeError naming the option that is out of its range.
 */
export function reactorMemory(options: ReactorOptions): ReactorMemory {
  check(options);
  const { eventsMax, operationsMax, connectionsMax } = options;
  const slots = connectionsMax + 1;
  const numberCount = ENTRY_LENGTH * (eventsMax + operationsMax) + 2 * slots;
  const arenaStart = roundUp(numberCount * Int32Array.BYTES_PER_ELEMENT, PAGE_BYTES);
  const byteCount = arenaStart + options.arenaBytes + options.scratchBytes;
  const pages = roundUp(byteCount, MEMORY_PAGE_BYTES) / MEMORY_PAGE_BYTES;
  const { buffer } = new WebAssembly.Memory({ initial: pages, maximum: pages });
  let taken = 0;
  const numbers = (length: number): Int32Array => {
    const array = new Int32Array(buffer, taken, length);
    taken += array.byteLength;
    return array;
  };
  const arrays = {
    events: numbers(ENTRY_LENGTH * eventsMax),
    operations: numbers(ENTRY_LENGTH * operationsMax),
    pending: numbers(slots),
    credit: numbers(slots),
    arena: new Uint8Array(buffer, arenaStart, byteCount - arenaStart),
  };
  arrays.credit[0] = options.arenaBytes;
  return {
    arrays,
    bytes: new Uint8Array(buffer, 0, byteCount),
    sizes: new Uint8Array(
      BigUint64Array.from(OPTION_NAMES, (name) => BigInt(options[name])).buffer,
    ),
  };
}

function check(options: ReactorOptions): void {
  for (const name of OPTION_NAMES) {
    const [least, most] = RANGES[name];
    const value = options[name];
    if (Number.isInteger(value) && value >= least && value <= most) continue;
    throw new TypeError(`${name} must be an integer from ${least} to ${most}`);
  }
  const { arenaBytes, plainReadBytes, cipherReadBytes, cipherSendBytes, queueBytesMax } = options;
  if (Math.max(plainReadBytes, cipherReadBytes) + ARENA_SPARE_BYTES > arenaBytes) {
    throw new TypeError("arenaBytes must be 32 KiB more than plainReadBytes and cipherReadBytes");
  }
  if (cipherSendBytes > queueBytesMax) {
    throw new TypeError("cipherSendBytes must be at most queueBytesMax");
  }
}

function roundUp(count: number, unit: number): number {
  return Math.ceil(count / unit) * unit;
}
