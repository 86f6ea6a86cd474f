/**
 * A YAML file read key by key: every mistake is noted with its line and reading goes on, so that one
 * look at the report is enough to correct the file.
 */
import {
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseDocument,
} from "yaml";
import { yamlProblem } from "./yaml-problem.ts";

/** A parsed file and what is wrong with it. */
export class YamlFile {
  readonly #mistakes: { readonly line: number; readonly message: string }[] = [];
  readonly #origin: string;
  readonly #lines = new LineCounter();
  readonly #document: Document;
  /** The text is no YAML: what its values seem to be is a guess, and their mistakes would mislead. */
  readonly #isBroken: boolean;

  /** @param origin the name of the file in mistakes. */
  constructor(text: string, origin: string) {
    this.#origin = origin;
    this.#document = parseDocument(text, { lineCounter: this.#lines, prettyErrors: false });
    const { errors } = this.#document;
    for (const { message, pos } of errors) this.#note(pos[0], yamlProblem(message));
    this.#isBroken = errors.some(({ code }) => code !== "DUPLICATE_KEY");
  }

  /** `origin:line: what is wrong`, by line. */
  get mistakes(): readonly string[] {
    return this.#mistakes
      .toSorted((a, b) => a.line - b.line)
      .map(({ line, message }) => `${this.#origin}:${line}: ${message}`);
  }

  /** The whole file as a record. */
  root(): YamlRecord {
    return new YamlRecord(this, this.#document.contents as Node | null, "");
  }

  /** Follows an alias. */
  resolve(node: unknown): Node | undefined {
    if (isAlias(node)) return node.resolve(this.#document);
    return (node ?? undefined) as Node | undefined;
  }

  /** @param path where in the file, such as `workloads[2].waypoint`; may be empty. */
  mistake(node: Node | undefined, path: string, problem: string): void {
    if (this.#isBroken) return;
    this.#note(node?.range?.[0] ?? 0, path === "" ? problem : `${path}: ${problem}`);
  }

  #note(offset: number, message: string): void {
    // An empty file has no first line.
    this.#mistakes.push({ line: this.#lines.linePos(offset).line || 1, message });
  }
}

/** One value of the file with the place where it stands. */
export class YamlValue {
  readonly #file: YamlFile;
  readonly node: Node | undefined;
  readonly path: string;

  constructor(file: YamlFile, node: unknown, path: string) {
    this.#file = file;
    this.node = file.resolve(node);
    this.path = path;
  }

  /** Nothing written, or `null`. */
  get isEmpty(): boolean {
    return this.node === undefined || (isScalar(this.node) && this.node.value === null);
  }

  /** The custom tag, such as `!Exact`. */
  get tag(): string | undefined {
    const tag = this.node?.tag;
    return tag?.startsWith("!") ? tag : undefined;
  }

  /** True for a tag that stands alone, as in `!Presence` or `!Presence []`. */
  get isTagAlone(): boolean {
    return isSeq(this.node)
      ? this.node.items.length === 0
      : isScalar(this.node) && this.node.value === "";
  }

  mistake(problem: string): void {
    this.#file.mistake(this.node, this.path, problem);
  }

  /** The text behind a custom tag. */
  taggedText(): string {
    if (isScalar(this.node) && typeof this.node.value === "string") return this.node.value;
    this.mistake(`must be text after ${this.tag}`);
    return "";
  }

  /** The value of a plain scalar; notes a mistake for anything else. */
  scalar(expected: string): unknown {
    if (isScalar(this.node) && this.tag === undefined) return this.node.value;
    this.mistake(`must be ${expected}`);
    return undefined;
  }

  text(): string {
    const value = this.scalar("text");
    if (typeof value === "string") return value;
    if (value !== undefined) this.mistake(`must be text, so put ${value} in quotes`);
    return "";
  }

  flag(): boolean {
    const value = this.scalar("true or false");
    if (typeof value === "boolean") return value;
    if (value !== undefined) this.mistake(`must be true or false, not ${JSON.stringify(value)}`);
    return false;
  }

  /** An integer of 0 to `max`. */
  integer(max: number): number {
    const value = this.scalar("a number");
    if (typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= max) {
      return value;
    }
    if (value !== undefined)
      this.mistake(`must be a number of 0 to ${max}, not ${JSON.stringify(value)}`);
    return 0;
  }

  oneOf<Choice extends string>(choices: readonly [Choice, ...Choice[]]): Choice {
    const value = this.scalar(`one of ${choices.join(", ")}`);
    const choice = choices.find((candidate) => candidate === value);
    if (choice === undefined && value !== undefined) {
      this.mistake(`must be one of ${choices.join(", ")}, not ${value}`);
    }
    return choice ?? choices[0];
  }

  list<Item>(read: (item: YamlValue) => Item | undefined): Item[] {
    const items: Item[] = [];
    if (!isSeq(this.node) || this.tag !== undefined) {
      this.mistake("must be a list");
      return items;
    }
    for (const [i, node] of this.node.items.entries()) {
      const item = read(new YamlValue(this.#file, node, `${this.path}[${i}]`));
      if (item !== undefined) items.push(item);
    }
    return items;
  }

  /** Keys of any name. */
  map<Key, Value>(
    readKey: (key: YamlValue) => Key | undefined,
    readValue: (value: YamlValue) => Value | undefined,
  ): Map<Key, Value> {
    const entries = new Map<Key, Value>();
    if (!isMap(this.node)) {
      this.mistake("must be a map");
      return entries;
    }
    for (const pair of this.node.items) {
      const name = isScalar(pair.key) ? pair.key.value : "?";
      const path = `${this.path}[${name}]`;
      const key = readKey(new YamlValue(this.#file, pair.key, path));
      const value = readValue(new YamlValue(this.#file, pair.value ?? pair.key, path));
      if (key !== undefined && value !== undefined) entries.set(key, value);
    }
    return entries;
  }

  /** Keys that must be known; the reader asks for each. */
  record<Result>(read: (record: YamlRecord) => Result): Result {
    const record = new YamlRecord(this.#file, this.node, this.path);
    const result = read(record);
    record.refuseUnknownKeys();
    return result;
  }

  /** Keys of which only some concern the reader; the others may be anything. */
  openRecord<Result>(read: (record: YamlRecord) => Result): Result {
    return read(new YamlRecord(this.#file, this.node, this.path));
  }
}

/** A map whose keys are known. A key that nobody asked for is a mistake. */
export class YamlRecord {
  readonly #file: YamlFile;
  readonly #node: Node | undefined;
  readonly #path: string;
  readonly #values = new Map<string, YamlValue>();
  readonly #asked = new Set<string>();
  /** No map at all: one mistake is enough for it. */
  readonly #isBroken: boolean;

  constructor(file: YamlFile, node: Node | null | undefined, path: string) {
    this.#file = file;
    this.#node = node ?? undefined;
    this.#path = path;
    this.#isBroken = node != null && !isMap(node);
    if (!isMap(node)) {
      if (node != null) file.mistake(node, path, "must be a map");
      return;
    }
    for (const { key, value } of node.items) {
      if (!isScalar(key) || typeof key.value !== "string") {
        file.mistake(key as Node, path, "keys must be names");
        continue;
      }
      const inner = path === "" ? key.value : `${path}.${key.value}`;
      this.#values.set(key.value, new YamlValue(file, value ?? key, inner));
    }
  }

  /** @returns `undefined` when the key is absent or has no value. */
  optional<Result>(key: string, read: (value: YamlValue) => Result): Result | undefined {
    this.#asked.add(key);
    const value = this.#values.get(key);
    return value === undefined || value.isEmpty ? undefined : read(value);
  }

  /** An absent key is a mistake; `fallback` stands in for its value. */
  required<Result>(key: string, read: (value: YamlValue) => Result, fallback: Result): Result {
    const result = this.optional(key, read);
    if (result !== undefined) return result;
    if (!this.#isBroken && this.#values.get(key)?.isEmpty !== false) {
      this.#file.mistake(this.#node, this.#path, `missing key ${key}`);
    }
    return fallback;
  }

  /** Call when everything that is known has been asked for. */
  refuseUnknownKeys(): void {
    if (!isMap(this.#node)) return;
    for (const { key } of this.#node.items) {
      if (!isScalar(key) || typeof key.value !== "string" || this.#asked.has(key.value)) continue;
      this.#file.mistake(key, this.#path, `unknown key ${key.value}`);
    }
  }
}
