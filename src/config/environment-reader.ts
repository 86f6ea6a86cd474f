/** Environment variables read one by one: every mistake is noted and reading goes on. */
import { parseDuration } from "./duration.ts";

/** Values by name; unset ones are `undefined`. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** What configuration asks of the machine. */
export interface Host {
  readonly cpuCount: number;
  fileExists(path: string): boolean;
  /** @throws what the system says. */
  readText(path: string): string;
}

export interface IntegerRange {
  readonly min: number;
  readonly max: number;
}

export class EnvironmentReader {
  readonly #environment: Environment;
  readonly #mistakes: string[] = [];

  constructor(environment: Environment) {
    this.#environment = environment;
  }

  get mistakes(): readonly string[] {
    return this.#mistakes;
  }

  /** Notes a mistake that is not about a single variable. */
  mistake(text: string): void {
    this.#mistakes.push(text);
  }

  /** Notes what is wrong with the value of a variable that is set. */
  invalid(name: string, reason: string): void {
    const value = this.#environment[name]?.replaceAll("\n", "\\n");
    this.mistake(`invalid env var ${name}=${value} (${reason})`);
  }

  /** @returns `undefined` when the variable is not set; a set one may be empty. */
  text(name: string): string | undefined {
    return this.#environment[name];
  }

  /** The same for what has no meaning when it is empty. */
  filled(name: string): string | undefined {
    const text = this.text(name);
    if (text === "") this.invalid(name, "must not be empty");
    return text;
  }

  /** `true` or `false`. */
  flag<Default extends boolean | undefined>(name: string, fallback: Default): boolean | Default {
    const text = this.text(name);
    if (text === undefined) return fallback;
    if (text === "true") return true;
    if (text !== "false") this.invalid(name, "provided string was not `true` or `false`");
    return false;
  }

  /** Decimal digits. */
  integer(name: string, fallback: number, { min, max }: IntegerRange): number {
    const text = this.text(name);
    if (text === undefined) return fallback;
    const value = Number(text);
    if (text === "") this.invalid(name, "cannot parse integer from empty string");
    else if (!/^\d+$/.test(text)) this.invalid(name, "invalid digit found in string");
    else if (value < min || value > max) this.invalid(name, `must be ${min} to ${max}`);
    else return value;
    return fallback;
  }

  /** @returns milliseconds, rounded up to a whole one. */
  duration(name: string, fallbackMs: number, { min, max }: IntegerRange): number {
    const text = this.text(name);
    if (text === undefined) return fallbackMs;
    const ms = parseDuration(text);
    if (ms === undefined) this.invalid(name, "expected a duration such as 90s, 5m or 1m30s");
    else if (ms < min || ms > max) this.invalid(name, `must be ${min} ms to ${max} ms`);
    else return Math.ceil(ms);
    return fallbackMs;
  }

  /** One of the given words. */
  oneOf<Choice extends string, Default extends Choice | undefined>(
    name: string,
    choices: readonly Choice[],
    fallback: Default,
  ): Choice | Default {
    const text = this.text(name);
    if (text === undefined) return fallback;
    const choice = choices.find((candidate) => candidate === text);
    if (choice !== undefined) return choice;
    this.invalid(name, `${name} must be one of ${choices.join(", ")}`);
    return fallback;
  }

  /** Variables whose name begins so: what follows the prefix, and the value. */
  withPrefix(prefix: string): readonly (readonly [name: string, value: string])[] {
    return Object.entries(this.#environment).flatMap(([name, value]) =>
      name.startsWith(prefix) && value !== undefined ? [[name.slice(prefix.length), value]] : [],
    );
  }
}
