import type { Logger } from "../../src/telemetry/logger.ts";

/** Says nothing. */
export const silentLogger: Logger = {
  enabled: () => false,
  write: () => {},
  target: () => silentLogger,
  span: () => silentLogger,
};
