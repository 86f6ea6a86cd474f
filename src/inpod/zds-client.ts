/**
 * Keeps a conversation with the node agent going: dials, talks, dials again. What runs goes on
 * running while the agent is away.
 *
 * @see spec data-path 11.7.
 */
import { constants } from "node:os";
import { Backoff } from "../runtime/backoff.ts";
import { type Clock, sleep } from "../runtime/clock.ts";
import { errorText } from "../runtime/error-text.ts";
import type { Random } from "../runtime/random.ts";
import { formatDelay } from "../telemetry/delay-text.ts";
import type { Logger } from "../telemetry/logger.ts";
import { InpodError, osErrorText } from "./inpod-error.ts";
import type { WorkloadReconciler } from "./workload-reconciler.ts";
import type { ZdsConnection } from "./zds-connection.ts";
import { ZdsSession } from "./zds-session.ts";

/** The original's; the first sleep is short because an agent that restarts is back soon. */
const BACKOFF = { firstMs: 20, maxMs: 15_000, jitter: 0 };

export interface ZdsClientDeps {
  /** Port: {@link SeqpacketConnection} on `path`. Throws what the system says. */
  readonly dial: (path: string) => ZdsConnection;
  readonly reconciler: WorkloadReconciler;
  readonly clock: Clock;
  readonly random: Random;
  /** Any target; the original's two are taken from it. */
  readonly log: Logger;
}

/** How the conversation stands, for operators. */
export interface AgentStatus {
  readonly connected: boolean;
  /** What ended the last conversation or stands in the way of the next. */
  readonly lastError: string | undefined;
}

export class ZdsClient {
  readonly #deps: ZdsClientDeps;
  readonly #log: Logger;
  readonly #path: string;
  #connected = false;
  #lastError: string | undefined;

  constructor(deps: ZdsClientDeps, options: { /** `INPOD_UDS` */ readonly path: string }) {
    this.#deps = deps;
    this.#log = deps.log.target("ztunnel::inpod::workloadmanager");
    this.#path = options.path;
  }

  status(): AgentStatus {
    return { connected: this.#connected, lastError: this.#lastError };
  }

  /**
   * Talks until the signal is aborted; the socket is closed then, so that the agent turns to
   * another proxy. Workloads are left to the caller.
   *
   * @throws InpodError `protocol`: the process should end with exit code 1.
   */
  async run(signal: AbortSignal): Promise<void> {
    const { reconciler, clock, random } = this.#deps;
    const backoff = new Backoff(random, BACKOFF);
    while (!signal.aborted) {
      const connection = this.#dial(backoff);
      if (typeof connection === "number") {
        await sleep(clock, connection, signal).catch(ignoreAbort(signal));
        continue;
      }
      this.#log.write("info", "handling new stream");
      await reconciler.conversationStarted();
      const session = new ZdsSession({ reconciler, log: this.#log }, connection);
      this.#connected = true;
      this.#lastError = "the node agent hung up";
      await this.#talk(session, signal);
      this.#connected = false;
      await reconciler.conversationEnded();
      // An agent that hangs up without a word is down in all but name.
      if (session.messageCount > 0) backoff.reset();
      else await sleep(clock, backoff.next(), signal).catch(ignoreAbort(signal));
    }
    this.#log.write("info", "drain requested");
  }

  /** @returns the milliseconds to wait when nobody listens. */
  #dial(backoff: Backoff): ZdsConnection | number {
    try {
      return this.#deps.dial(this.#path);
    } catch (error) {
      const delayMs = backoff.next();
      this.#lastError = dialFailure(error);
      this.#log.write(
        "warn",
        `failed to connect to the Istio CNI node agent over ${JSON.stringify(this.#path)}, is the node agent healthy? details: ${this.#lastError}. retrying in ${formatDelay(delayMs)}`,
      );
      return delayMs;
    }
  }

  async #talk(session: ZdsSession, signal: AbortSignal): Promise<void> {
    try {
      await session.run(signal);
      this.#log.write("info", "process stream ended with eof");
    } catch (error) {
      if (signal.aborted) {
        this.#deps.log
          .target("ztunnel::inpod::protocol")
          .write("info", "workload proxy manager: drain requested");
        this.#log.write("info", "process stream ended with eof");
      } else if (error instanceof InpodError && error.code === "protocol") {
        this.#log.write("error", "protocol mismatch error while processing stream, shutting down");
        throw error;
      } else {
        const reason = errorText(error);
        this.#lastError = reason;
        this.#log.write("warn", `process stream ended: ${reason}`);
      }
    }
  }
}

function ignoreAbort(signal: AbortSignal): (reason: unknown) => void {
  return (reason) => {
    // Aborted is what the loop looks at next.
    if (!signal.aborted) throw reason;
  };
}

/** The words of the original for what a dial meets in practice, else those of the system. */
function dialFailure(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code;
  const text = code === undefined ? undefined : DIAL_FAILURES[code];
  if (text === undefined) return errorText(error);
  return osErrorText(constants.errno[code as keyof typeof constants.errno], text);
}

const DIAL_FAILURES: Readonly<Record<string, string>> = {
  ENOENT: "No such file or directory",
  EACCES: "Permission denied",
  ECONNREFUSED: "Connection refused",
  EPROTOTYPE: "Protocol wrong type for socket",
};
