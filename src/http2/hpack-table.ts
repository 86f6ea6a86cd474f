/**
 * The dynamic table of one direction, RFC 7541 section 2.3.2 and 4: a ring of fields, newest first,
 * the oldest evicted when their sizes exceed the limit.
 */

/** What an entry counts beyond its two strings. RFC 7541 section 4.1. */
const ENTRY_OVERHEAD_BYTES = 32;

/** What a field counts in tables and header lists. */
export function fieldBytes(name: string, value: string): number {
  return name.length + value.length + ENTRY_OVERHEAD_BYTES;
}

export class HpackTable {
  /** Slot of the n-th field ever added is `n & mask`. */
  readonly #names: string[] = [];
  readonly #values: string[] = [];
  readonly #mask: number;
  #bytes = 0;
  #bytesMax: number;
  #addedCount = 0;
  #count = 0;

  /** @param bytesMax the most that {@link resize} may ever ask for. */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
    const fieldsMax = Math.max(1, Math.floor(bytesMax / ENTRY_OVERHEAD_BYTES));
    this.#mask = 2 ** Math.ceil(Math.log2(fieldsMax)) - 1;
  }

  get count(): number {
    return this.#count;
  }

  get bytesMax(): number {
    return this.#bytesMax;
  }

  /** @param position 0 is the newest, below {@link count}. */
  name(position: number): string {
    return this.#names[(this.#addedCount - 1 - position) & this.#mask] as string;
  }

  /** @param position 0 is the newest, below {@link count}. */
  value(position: number): string {
    return this.#values[(this.#addedCount - 1 - position) & this.#mask] as string;
  }

  /**
   * Looks for a field, newest first.
   *
   * @returns its position, or the complement of that of the newest one with this name (below zero),
   *   or `undefined`.
   */
  find(name: string, value: string): number | undefined {
    const [names, values, mask] = [this.#names, this.#values, this.#mask];
    const newest = this.#addedCount - 1;
    let named: number | undefined;
    for (let position = 0; position < this.#count; position++) {
      const slot = (newest - position) & mask;
      if (names[slot] !== name) continue;
      if (values[slot] === value) return position;
      named ??= ~position;
    }
    return named;
  }

  /** Adds a field; one above the limit empties the table, RFC 7541 section 4.4. */
  add(name: string, value: string): void {
    const bytes = fieldBytes(name, value);
    this.#evict(this.#bytesMax - bytes);
    if (bytes > this.#bytesMax) return;
    const slot = this.#addedCount & this.#mask;
    this.#names[slot] = name;
    this.#values[slot] = value;
    this.#addedCount += 1;
    this.#count += 1;
    this.#bytes += bytes;
  }

  resize(bytesMax: number): void {
    this.#bytesMax = bytesMax;
    this.#evict(bytesMax);
  }

  #evict(bytesMax: number): void {
    while (this.#count > 0 && this.#bytes > bytesMax) {
      this.#count -= 1;
      const slot = (this.#addedCount - 1 - this.#count) & this.#mask;
      this.#bytes -= fieldBytes(this.#names[slot] as string, this.#values[slot] as string);
      this.#names[slot] = "";
      this.#values[slot] = "";
    }
  }
}
