/** The logging port that every room takes; see log-filter.ts and log-format.ts for what is behind it. */

export type LogLevel = "error" | "warn" | "info" | "debug" | "trace";

/** Numbers stay numbers, strings are quoted in the plain format, `bare` values are not. */
export type LogValue = string | number | boolean | { readonly bare: string };

export type LogField = readonly [name: string, value: LogValue];

/** In the order in which they are written. */
export type LogFields = readonly (LogField | LogFieldGroup)[];

/** Fields that many lines share: their text is made once. */
export class LogFieldGroup {
  readonly fields: readonly LogField[];
  /** As the plain format writes them; the format's own. */
  plain: string | undefined = undefined;

  constructor(fields: readonly LogField[]) {
    this.fields = fields;
  }
}

/** Those of groups one by one. */
export function eachField(fields: LogFields): readonly LogField[] {
  return fields.flatMap((field) => (field instanceof LogFieldGroup ? field.fields : [field]));
}

export interface Logger {
  /** Ask before building fields. */
  enabled(level: LogLevel): boolean;
  write(level: LogLevel, message: string, fields?: LogFields): void;
  /** The same sink under another target, such as `ztunnel::inpod::statemanager` or `access`. */
  target(target: string): Logger;
  /** The same target inside one more span: `proxy{wl=default/client1}`. */
  span(name: string, fields: LogFields): Logger;
}
