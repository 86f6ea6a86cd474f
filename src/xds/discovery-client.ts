/**
 * Keeps a discovery conversation going: connects, takes in what comes in small steps, replies, and
 * connects again. What is known stays known while there is no connection.
 *
 * @see spec control-plane 1.8 for the classes of endings, their delays and log lines.
 */
import { Backoff } from "../runtime/backoff.ts";
import { type Clock, sleep, type Timer } from "../runtime/clock.ts";
import { errorText } from "../runtime/error-text.ts";
import type { Random } from "../runtime/random.ts";
import { formatDelay } from "../telemetry/delay-text.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { DeltaClient } from "./delta-client.ts";
import {
  DiscoveryError,
  type DiscoveryStream,
  type DiscoveryTransport,
  type ReceivedResponse,
} from "./discovery-transport.ts";

/** Why a conversation ended, as the metric names it. */
export type TerminationReason = "ConnectionError" | "Error" | "Reconnect" | "Complete";

export interface DiscoveryMetrics {
  received(url: string, byteCount: number): void;
  terminated(reason: TerminationReason): void;
}

export interface DiscoveryClientDeps {
  readonly transport: DiscoveryTransport;
  readonly client: DeltaClient;
  readonly metrics: DiscoveryMetrics;
  /** The first answer of a conversation has come. */
  readonly connected: () => void;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export interface DiscoveryClientOptions {
  /** For messages: `https://host:port`. */
  readonly address: string;
  /** A server that accepts the stream and then says nothing is given up after this, milliseconds. */
  readonly firstAnswerMs: number;
  /** How long resources are taken in before others may use the thread, milliseconds. */
  readonly sliceMs: number;
}

/** How the conversation stands, for readiness, metrics and dumps. */
export interface DiscoveryStatus {
  /** An answer has come on the stream that is there. */
  readonly connected: boolean;
  /** Since when that is not so, monotonic ms; `undefined`: it is. */
  readonly awaySince: number | undefined;
  /** When the last answer was taken in, ms since the epoch; `undefined`: none yet. */
  readonly lastAnswerAt: number | undefined;
  /** What ended the last conversation or stands in the way of the next. */
  readonly lastError: string | undefined;
  /** What was refused last, while something is missing because of that. */
  readonly refusal: string | undefined;
}

const BACKOFF = { firstMs: 20, maxMs: 15_000, jitter: 0.2 };
/** After a stream that ended as streams do: istiod ends each one after half an hour. */
const RECONNECT_MS = 10;
/** Between two looks at the time. */
const STEP_RESOURCES = 16;
/** A stream with one of these ended because the connection did, not because of what was said. */
const PASSING = new Set(["Unknown", "Cancelled", "DeadlineExceeded", "Unavailable"]);

export class DiscoveryClient {
  readonly #deps: DiscoveryClientDeps;
  readonly #options: DiscoveryClientOptions;
  readonly #backoff: Backoff;
  #stream: DiscoveryStream | undefined;
  #attempts = 0;
  #answered = false;
  /** The last stream that came about was ended without an answer. */
  #wasUnanswered = false;
  #awaySince: number;
  #lastAnswerAt: number | undefined;
  #lastError: string | undefined;
  #refusal: string | undefined;
  #synced = Promise.withResolvers<void>();

  constructor(deps: DiscoveryClientDeps, options: DiscoveryClientOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#backoff = new Backoff(deps.random, BACKOFF);
    this.#awaySince = deps.clock.monotonic();
  }

  /** Resolves once an answer of each type that is fully subscribed was accepted. */
  get synced(): Promise<void> {
    return this.#synced.promise;
  }

  status(): DiscoveryStatus {
    return {
      connected: this.#answered,
      awaySince: this.#answered ? undefined : this.#awaySince,
      lastAnswerAt: this.#lastAnswerAt,
      lastError: this.#lastError,
      refusal: this.#refusal,
    };
  }

  /** The mesh is that of an earlier process, which had it then (ms since the epoch). */
  resume(lastAnswerAt: number): void {
    this.#lastAnswerAt = lastAnswerAt;
  }

  /** Converses until the signal is aborted. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    const close = () => this.#stream?.close();
    signal.addEventListener("abort", close);
    while (!signal.aborted) {
      const log = this.#deps.log
        .target("ztunnel::xds::client")
        .span("xds", [["id", ++this.#attempts]]);
      const ending = await this.#converse(log, signal);
      this.#stream = undefined;
      const worked = this.#answered;
      if (worked) this.#awaySince = this.#deps.clock.monotonic();
      this.#answered = false;
      if (signal.aborted) break;
      const delayMs = this.#judge(ending, worked, log);
      await sleep(this.#deps.clock, delayMs, signal).catch(() => undefined);
    }
    signal.removeEventListener("abort", close);
  }

  /** Ends the conversation that is under way, so that the next uses a new token or new roots. */
  reconnect(): void {
    this.#stream?.close();
  }

  /**
   * Asks for one resource of a type that is subscribed on demand.
   *
   * @param timeoutMs how long to wait, also for a connection.
   * @returns false when no answer came in time.
   */
  demand(url: string, key: string, timeoutMs: number): Promise<boolean> {
    const { client, clock, log } = this.#deps;
    return new Promise((resolve) => {
      let timer: Timer | undefined;
      const answered = (): void => {
        timer?.cancel();
        resolve(true);
      };
      const request = client.demand(url, key, answered);
      timer = clock.after(timeoutMs, () => {
        client.abandon(url, key, answered);
        resolve(false);
      });
      if (request === undefined) return;
      log.target("ztunnel::xds::client").write("info", `received on demand request ${url}/${key}`);
      this.#stream?.send(request);
    });
  }

  /** @returns what ended it; `undefined`: the server, in peace. */
  async #converse(log: Logger, signal: AbortSignal): Promise<unknown> {
    let silence: Timer | undefined;
    let silent = false;
    try {
      const stream = await this.#deps.transport.open();
      if (signal.aborted) {
        stream.close();
        return undefined;
      }
      this.#stream = stream;
      for (const request of this.#deps.client.open()) {
        const { typeUrl, initialResourceVersions } = request;
        log.write("debug", "sending initial request", [
          ["resources", initialResourceVersions.size],
          ["type_url", typeUrl],
        ]);
        stream.send(request);
      }
      silence = this.#deps.clock.after(this.#options.firstAnswerMs, () => {
        silent = true;
        stream.close();
      });
      for (;;) {
        const received = await stream.next();
        silence.cancel();
        if (received === undefined) return undefined;
        if (!this.#answered) {
          log.write("info", "Stream established");
          this.#answered = true;
          this.#deps.connected();
        }
        stream.send(await this.#takeIn(received, log));
      }
    } catch (error) {
      if (!silent) return error;
      const message = `no answer within ${formatDelay(this.#options.firstAnswerMs)}`;
      return new DiscoveryError("connection", message, { status: "DeadlineExceeded" });
    } finally {
      silence?.cancel();
      this.#stream?.close();
    }
  }

  async #takeIn({ response, byteCount }: ReceivedResponse, log: Logger) {
    const { client, clock, metrics } = this.#deps;
    const { typeUrl, resources, removedResources, nonce } = response;
    metrics.received(typeUrl, byteCount);
    log.write("debug", "received response", [
      ["type_url", typeUrl],
      ["size", resources.length],
      ["removes", removedResources.length],
    ]);
    const exchange = client.receive(response);
    if (!exchange.known) log.write("error", "unknown type", [["type_url", typeUrl]]);
    let sliceEnd = clock.monotonic() + this.#options.sliceMs;
    while (exchange.step(STEP_RESOURCES)) {
      if (clock.monotonic() < sliceEnd) continue;
      await new Promise<void>((resolve) => clock.after(0, resolve, true));
      sliceEnd = clock.monotonic() + this.#options.sliceMs;
    }
    const reply = exchange.finish();
    this.#lastAnswerAt = clock.now();
    const refused = reply.errorDetail?.message;
    log.write(refused === undefined ? "debug" : "error", "sending response", [
      ["type_url", typeUrl],
      ["nonce", nonce],
      ["type", { bare: refused === undefined ? "Ack" : "Nack" }],
      ...(refused === undefined ? [] : [["error", refused] as const]),
    ]);
    const isWhole = client.missing().length === 0;
    this.#refusal = isWhole ? undefined : (refused ?? this.#refusal);
    if (isWhole) this.#synced.resolve();
    return reply;
  }

  /**
   * Logs and counts an ending.
   *
   * @param worked an answer had come.
   * @returns how long to wait, milliseconds.
   */
  #judge(ending: unknown, worked: boolean, log: Logger): number {
    const { metrics } = this.#deps;
    if (ending === undefined) {
      metrics.terminated("Complete");
      log.write("warn", "XDS client complete");
      this.#lastError = "the control plane ended the stream";
      return this.#reconnectMs(worked);
    }
    const error = asDiscoveryError(ending);
    this.#lastError = error.message;
    const status = `status: ${error.status}, message: ${JSON.stringify(error.message)}${hint(error)}`;
    switch (error.code) {
      case "connection": {
        const delayMs = this.#backoff.next();
        metrics.terminated("ConnectionError");
        log.write(
          "warn",
          `XDS client connection error: gRPC connection error connecting to ${this.#options.address}: ${status}, retrying in ${formatDelay(delayMs)}`,
        );
        return delayMs;
      }
      case "stream": {
        if (PASSING.has(error.status)) {
          metrics.terminated("Reconnect");
          log.write("debug", `XDS client terminated: gRPC error ${status}`);
          return this.#reconnectMs(worked);
        }
        const delayMs = this.#backoff.next();
        metrics.terminated("Error");
        log.write(
          "warn",
          `XDS client error: gRPC error ${status}, retrying in ${formatDelay(delayMs)}`,
        );
        return delayMs;
      }
      case "setup": {
        const delayMs = this.#backoff.next();
        metrics.terminated("Error");
        log.write(
          "warn",
          `XDS client error: ${error.message}, retrying in ${formatDelay(delayMs)}`,
        );
        return delayMs;
      }
    }
  }

  /** A server that takes one stream after another and answers none is called less and less often. */
  #reconnectMs(worked: boolean): number {
    if (worked) this.#backoff.reset();
    const delayMs = worked || !this.#wasUnanswered ? RECONNECT_MS : this.#backoff.next();
    this.#wasUnanswered = !worked;
    return delayMs;
  }
}

function asDiscoveryError(ending: unknown): DiscoveryError {
  if (ending instanceof DiscoveryError) return ending;
  const message = errorText(ending);
  return new DiscoveryError("setup", message, { cause: ending });
}

/** What an operator should look at next. */
function hint({ message }: DiscoveryError): string {
  if (message.includes("authentication failure")) {
    return " (hint: check the control plane logs for more information)";
  }
  if (/EAI_AGAIN|ENOTFOUND|Name resolution failed/.test(message)) {
    return " (hint: is the DNS server reachable?)";
  }
  return "";
}
