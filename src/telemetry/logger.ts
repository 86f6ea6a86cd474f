/** The logging port that every room takes; see log-filter.ts and log-format.ts for what is behind it. */

export type LogLevel = "error" | "warn" | "info" | "debug" | "trace";

/** Numbers stay numbers, strings are quoted in the plain format, `bare` values are not. */
export type LogValue = string | number | boolean | { readonly bare: string };

/** In the order in which they are written. */
export type LogFields = readonly (readonly [name: string, value: LogValue])[];

export interface Logger {
  /** Ask before building fields. */
  enabled(level: LogLevel): boolean;
  write(level: LogLevel, message: string, fields?: LogFields): void;
  /** The same sink under another target, such as `ztunnel::inpod::statemanager` or `access`. */
  target(target: string): Logger;
  /** The same target inside one more span: `proxy{wl=default/client1}`. */
  span(name: string, fields: LogFields): Logger;
}

/** Says nothing. */
export const silentLogger: Logger = {
  enabled: () => false,
  write: () => {},
  target: () => silentLogger,
  span: () => silentLogger,
};
