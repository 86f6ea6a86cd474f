/**
 * Which port a connection with a client's address leaves from.
 *
 * In the application's namespace the client's own connection and ours have the same addresses and,
 * for plaintext, the same destination port; with the same source port they would be one to the
 * kernel, and the later one hangs. A client's connect() takes even ports as long as there are any,
 * so ours are odd. They are used in turn, which keeps each away from its last TIME_WAIT for as long
 * as possible; one that is taken is passed over, and when several are, the kernel chooses.
 */

/** Odd ports of Linux's default ip_local_port_range, 32768 to 60999. */
const FIRST = 32_769;
const COUNT = 14_116;

/** Beyond it the odd ports are so full that choosing the kernel's way is cheaper. */
export const ODD_ATTEMPTS_MAX = 4;

export class SourcePorts {
  #index: number;

  /** @param seed where to begin; different for each engine, so that they do not meet. */
  constructor(seed: number) {
    this.#index = Math.floor(seed) % COUNT;
  }

  next(): number {
    this.#index = (this.#index + 1) % COUNT;
    return FIRST + 2 * this.#index;
  }
}
