/**
 * Which log lines are written: comma-separated directives as in `RUST_LOG`.
 *
 * `level` sets what holds for everything, `target=level` what holds for targets that begin with the
 * given one, a bare `target` means `target=trace`. The longest matching target decides; without a
 * level for everything, the rest is off.
 *
 * @see spec control-plane 9.1
 */
import type { LogLevel } from "./logger.ts";
import { TelemetryError } from "./telemetry-error.ts";

/** What a directive may say; `off` silences. */
export type LogThreshold = LogLevel | "off";

/** In order of how much they let through. */
const THRESHOLDS: readonly LogThreshold[] = ["off", "error", "warn", "info", "debug", "trace"];

/** How much a threshold lets through: 0 (`off`) to 5 (`trace`). */
export function thresholdRank(threshold: LogThreshold): number {
  return THRESHOLDS.indexOf(threshold);
}

/** @returns the threshold of a name in any case or of a digit 0 to 5, else `undefined`. */
function parseThreshold(text: string): LogThreshold | undefined {
  if (/^[0-5]$/.test(text)) return THRESHOLDS[Number(text)];
  const name = text.toLowerCase();
  return THRESHOLDS.find((threshold) => threshold === name);
}

interface Directive {
  /** Empty for everything. */
  readonly target: string;
  readonly threshold: LogThreshold;
}

/** An immutable filter; {@link format} gives text that {@link parse} reads back. */
export class LogFilter {
  /** Longest target first, so the first match decides; one directive a target. */
  readonly #directives: readonly Directive[];

  private constructor(directives: readonly Directive[]) {
    this.#directives = directives;
  }

  /** @throws TelemetryError `log-filter` naming what is wrong with which directive. */
  static parse(text: string): LogFilter {
    return new LogFilter([]).with(text);
  }

  /**
   * This filter and further directives, which win over earlier ones of the same target.
   *
   * @throws TelemetryError as {@link parse}.
   */
  with(text: string): LogFilter {
    const byTarget = new Map(this.#directives.map((directive) => [directive.target, directive]));
    for (const item of text.split(",")) {
      const directive = parseDirective(item.trim());
      byTarget.set(directive.target, directive);
    }
    return new LogFilter([...byTarget.values()].sort(mostSpecificFirst));
  }

  threshold(target: string): LogThreshold {
    const directive = this.#directives.find((candidate) => target.startsWith(candidate.target));
    return directive?.threshold ?? "off";
  }

  /** Most specific first, the level for everything last: `ztunnel::dns=trace,access=debug,info`. */
  format(): string {
    return this.#directives
      .map(({ target, threshold }) => (target === "" ? threshold : `${target}=${threshold}`))
      .join(",");
  }
}

function parseDirective(text: string): Directive {
  const [target = "", level, ...rest] = text.split("=");
  if (rest.length > 0) {
    throw new TelemetryError("log-filter", "too many '=' in filter directive, expected 0 or 1");
  }
  if (/[[\]{}\s]/.test(target)) {
    throw new TelemetryError("log-filter", `'${target}' is no target, spans can't be filtered`);
  }
  if (level === undefined) {
    const everything = parseThreshold(target);
    if (everything !== undefined) return { target: "", threshold: everything };
    if (target === "") throw new TelemetryError("log-filter", "empty filter directive");
    return { target, threshold: "trace" };
  }
  const threshold = parseThreshold(level);
  if (target === "" || threshold === undefined) {
    const expected = "expected target=off|error|warn|info|debug|trace";
    throw new TelemetryError("log-filter", `invalid filter directive '${text}', ${expected}`);
  }
  return { target, threshold };
}

function mostSpecificFirst(a: Directive, b: Directive): number {
  return b.target.length - a.target.length || (a.target < b.target ? 1 : -1);
}
