/** A logger that keeps what is written, so that tests read it. */
import {
  eachField,
  type LogField,
  type LogFields,
  type Logger,
  type LogLevel,
  type LogValue,
} from "../../src/telemetry/logger.ts";

const LEVELS: readonly LogLevel[] = ["error", "warn", "info", "debug", "trace"];

export interface CapturedLine {
  readonly level: LogLevel;
  readonly target: string;
  /** `proxy{wl=default/client1}`, outermost first. */
  readonly spans: readonly string[];
  readonly message: string;
  readonly fields: readonly LogField[];
}

export class CapturedLog {
  readonly lines: CapturedLine[] = [];
  readonly #level: LogLevel;

  constructor(level: LogLevel = "info") {
    this.#level = level;
  }

  /** Target `ztunnel`, without a span. */
  get root(): Logger {
    return this.#logger("ztunnel", []);
  }

  /** Lines of one target, or of all. */
  of(target: string): readonly CapturedLine[] {
    return this.lines.filter((line) => line.target === target);
  }

  clear(): void {
    this.lines.length = 0;
  }

  #logger(target: string, spans: readonly string[]): Logger {
    return {
      enabled: (level) => LEVELS.indexOf(level) <= LEVELS.indexOf(this.#level),
      write: (level, message, fields = []) => {
        if (LEVELS.indexOf(level) > LEVELS.indexOf(this.#level)) return;
        this.lines.push({ level, target, spans, message, fields: eachField(fields) });
      },
      target: (other) => this.#logger(other, spans),
      span: (name, fields) => this.#logger(target, [...spans, `${name}{${formatFields(fields)}}`]),
    };
  }
}

/** As the plain format writes them: bare values bare, strings quoted. */
export function formatFields(fields: LogFields): string {
  return eachField(fields)
    .map(([name, value]) => `${name}=${formatValue(value)}`)
    .join(" ");
}

function formatValue(value: LogValue): string {
  if (typeof value === "object") return value.bare;
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}
