/**
 * One downstream connection on its way: accepted, perhaps reported, perhaps relayed, ended once.
 * Whoever has reason to end it early (drain, policy, a failed upstream) says so here, whatever
 * stage it has reached.
 */
import type { End, Engine, Relay, RelayOutcome } from "../engine/engine.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";
import type { ConnectionReport } from "./connection-report.ts";
import type { Stoppable } from "./live-set.ts";
import { type ProxyError, relayFailure } from "./proxy-error.ts";

/** A connection as operators list it. */
export interface ConnectionSummary {
  readonly source: SocketAddress;
  /** Outbound: the address dialled. Inbound: the host name asked for, when one was named. */
  readonly originalDestination: SocketAddress | string | undefined;
  readonly actualDestination: SocketAddress;
  readonly protocol: "HBONE" | "TCP";
}

/** Told once when a connection has ended, after its report. */
export interface ConnectionOwner {
  ended(connection: ProxiedConnection): void;
}

export class ProxiedConnection implements Stoppable {
  readonly #downstream: End;
  readonly #owner: ConnectionOwner;
  #report: ConnectionReport | undefined;
  #summary: ConnectionSummary | undefined;
  #relay: Relay | undefined;
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
    return this.#summary;
  }

  /** From now on the end of the connection is reported. */
  opened(report: ConnectionReport, summary: ConnectionSummary): void {
    this.#report = report;
    this.#summary = summary;
  }

  /**
   * Joins both sides; the connection ends with the relay.
   *
   * @param downstream the end given to the constructor, or what it was accepted as.
   * @param upstream taken; closed when the connection has already ended.
   * @param finished called once when the upstream end is no longer used.
   */
  relay(engine: Engine, downstream: End, upstream: End, finished?: () => void): void {
    if (this.#ended) {
      upstream.close();
      finished?.();
      return;
    }
    this.#relay = engine.relay(downstream, upstream, (outcome: RelayOutcome) => {
      finished?.();
      this.#finish(this.#cause ?? relayFailure(outcome));
    });
    this.#report?.relaying(this.#relay);
  }

  /** Ends a connection that is not relayed yet; the peer sees EOF or RST as the kernel decides. */
  fail(error: ProxyError): void {
    if (this.#ended) return;
    this.#downstream.close();
    this.#finish(error);
  }

  stop(how: "close" | "reset", cause: ProxyError): void {
    if (this.#ended) return;
    if (this.#relay !== undefined) {
      this.#cause ??= cause;
      this.#relay.stop(how);
      return;
    }
    if (how === "reset") this.#downstream.reset();
    else this.#downstream.close();
    this.#finish(cause);
  }

  #finish(error: ProxyError | undefined): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#report?.finished(error);
    this.#owner.ended(this);
  }
}
