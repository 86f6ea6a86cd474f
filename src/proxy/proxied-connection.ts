/**
 * One downstream connection on its way: accepted, perhaps reported, perhaps relayed, ended once.
 * Whoever has reason to end it early (drain, policy, a failed upstream) says so here, whatever
 * stage it has reached.
 */
import type { End, Engine, Relay, RelayOutcome } from "../engine/engine.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { ConnectionReport, ConnectionSummary } from "./connection-report.ts";
import { relayFailure } from "./engine-failure.ts";
import type { Stoppable } from "./live-set.ts";
import { bugError, type ProxyError } from "./proxy-error.ts";

/** Told once when a connection has ended, after its report. */
export interface ConnectionOwner {
  ended(connection: ProxiedConnection): void;
}

/** A place that the upstream end takes up. */
export interface UpstreamLease {
  /** Called once when the upstream end is no longer used. */
  release(): void;
}

export class ProxiedConnection implements Stoppable {
  /** Until it is relayed. */
  #downstream: End | undefined;
  readonly #owner: ConnectionOwner;
  #report: ConnectionReport | undefined;
  #relay: Relay | undefined;
  #lease: UpstreamLease | undefined;
  #cause: ProxyError | undefined;
  #ended = false;

  /** Takes the downstream end. */
  constructor(downstream: End, owner: ConnectionOwner) {
    this.#downstream = downstream;
    this.#owner = owner;
  }

  /** True as soon as nothing more may be done for it; ask after every wait. */
  get ended(): boolean {
    return this.#ended;
  }

  /** `undefined` until it is known where the connection goes. */
  get summary(): ConnectionSummary | undefined {
    return this.#report?.summary;
  }

  /**
   * What only a bug throws ends this connection, not its thread.
   *
   * @param work what is done for it until it is relayed.
   */
  guard(work: Promise<void>, log: Logger): void {
    work.catch((thrown: unknown) => this.stop("reset", bugError(thrown, log)));
  }

  /** From now on the end of the connection is reported, at once when that was before. */
  opened(report: ConnectionReport): void {
    this.#report = report;
    if (this.#ended) report.finished(this.#cause);
  }

  /**
   * Joins both sides; the connection ends with the relay.
   *
   * @param downstream the end given to the constructor, or what it was accepted as.
   * @param upstream taken; closed when the connection has already ended.
   * @param lease of the upstream end, if it has one.
   */
  relay(engine: Engine, downstream: End, upstream: End, lease?: UpstreamLease): void {
    if (this.#ended) {
      upstream.close();
      lease?.release();
      return;
    }
    this.#downstream = undefined;
    this.#lease = lease;
    this.#relay = engine.relay(downstream, upstream, (outcome: RelayOutcome) => {
      this.#lease?.release();
      this.#finish(this.#cause ?? relayFailure(outcome));
    });
    this.#report?.relaying(this.#relay);
  }

  /** Ends a connection that is not relayed yet; the peer sees EOF or RST as the kernel decides. */
  fail(error: ProxyError): void {
    if (this.#ended) return;
    this.#downstream?.close();
    this.#finish(error);
  }

  stop(how: "close" | "reset", cause: ProxyError): void {
    if (this.#ended) return;
    this.#cause ??= cause;
    if (this.#relay !== undefined) {
      this.#relay.stop(how);
      return;
    }
    if (how === "reset") this.#downstream?.reset();
    else this.#downstream?.close();
    this.#finish(cause);
  }

  #finish(error: ProxyError | undefined): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#report?.finished(error);
    this.#owner.ended(this);
  }
}
