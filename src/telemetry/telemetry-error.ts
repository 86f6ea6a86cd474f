/** `log-filter`: a filter's text does not follow the grammar of log-filter.ts. */
export type TelemetryErrorCode = "log-filter";

export class TelemetryError extends Error {
  override readonly name = "TelemetryError";
  readonly code: TelemetryErrorCode;

  constructor(code: TelemetryErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}
