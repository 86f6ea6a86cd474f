/**
 * A Kubernetes object read field by field: what has the wrong type is noted with its path and reads
 * as if it were left out, so that one look at the mistakes is enough to correct a file.
 *
 * Fields that nobody asks for are not looked at: an object holds much that a mesh has no use for.
 */

/** Labels or annotations; empty when there are none. */
export type Labels = ReadonlyMap<string, string>;

/** Keys and indexes from the top of the object. */
export type FieldPath = readonly (string | number)[];

/** @param problem reads on from the path: "must be text". */
export type NoteMistake = (path: FieldPath, problem: string) => void;

const PORT_MAX = 65535;

/** One map of the object; empty where the object has none. */
export class KubernetesFields {
  readonly #values: Readonly<Record<string, unknown>>;
  readonly #path: FieldPath;
  readonly #note: NoteMistake;

  constructor(value: unknown, path: FieldPath, note: NoteMistake) {
    this.#path = path;
    this.#note = note;
    this.#values = isRecord(value) ? value : {};
    if (value !== undefined && value !== null && !isRecord(value)) note(path, "must be a map");
  }

  has(key: string): boolean {
    return this.#value(key) !== undefined;
  }

  /** Empty when left out. */
  text(key: string): string {
    const value = this.#value(key);
    if (typeof value === "string" || value === undefined) return value ?? "";
    this.mistake(key, `must be text, not ${JSON.stringify(value)}`);
    return "";
  }

  /** False when left out. */
  flag(key: string): boolean {
    const value = this.#value(key);
    if (typeof value === "boolean" || value === undefined) return value ?? false;
    this.mistake(key, `must be true or false, not ${JSON.stringify(value)}`);
    return false;
  }

  /** 0 to `max`; 0 when left out. */
  integer(key: string, max: number): number {
    const value = this.#value(key);
    if (value === undefined) return 0;
    if (typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= max) {
      return value;
    }
    this.mistake(key, `must be a number of 0 to ${max}, not ${JSON.stringify(value)}`);
    return 0;
  }

  /** 0 when left out. */
  port(key: string): number {
    return this.integer(key, PORT_MAX);
  }

  /** A number, or the name of a port of the workload; `undefined` when left out. */
  portOrName(key: string): number | string | undefined {
    const value = this.#value(key);
    return typeof value === "string" || value === undefined ? value : this.port(key);
  }

  /** @param whenAbsent may be a word that cannot be written. */
  choice<Choice extends string>(
    key: string,
    choices: readonly Choice[],
    whenAbsent: Choice,
  ): Choice {
    const text = this.text(key);
    if (text === "") return whenAbsent;
    const choice = choices.find((candidate) => candidate === text);
    if (choice === undefined)
      this.mistake(key, `must be one of ${choices.join(", ")}, not ${text}`);
    return choice ?? whenAbsent;
  }

  fields(key: string): KubernetesFields {
    return new KubernetesFields(this.#value(key), [...this.#path, key], this.#note);
  }

  /** Maps in a list; none when left out. */
  list(key: string): readonly KubernetesFields[] {
    return this.#items(key).map(
      (item, index) => new KubernetesFields(item, [...this.#path, key, index], this.#note),
    );
  }

  texts(key: string): readonly string[] {
    const items = this.#items(key);
    return items.filter((item, index): item is string => {
      if (typeof item === "string") return true;
      this.#note([...this.#path, key, index], `must be text, not ${JSON.stringify(item)}`);
      return false;
    });
  }

  /** Keys with text, such as labels. */
  labels(key: string): Labels {
    const fields = this.fields(key);
    return new Map(fields.keys().map((name) => [name, fields.text(name)]));
  }

  keys(): readonly string[] {
    return Object.keys(this.#values);
  }

  /** @param problem reads on from the path of the key. */
  mistake(key: string | number, problem: string): void {
    this.#note([...this.#path, key], problem);
  }

  #items(key: string): readonly unknown[] {
    const value = this.#value(key);
    if (value === undefined || Array.isArray(value)) return value ?? [];
    this.mistake(key, "must be a list");
    return [];
  }

  /** Written as null is the same as left out. */
  #value(key: string): unknown {
    return Object.hasOwn(this.#values, key) ? (this.#values[key] ?? undefined) : undefined;
  }
}

export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
