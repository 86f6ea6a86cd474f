/**
 * Judges inbound connections: when they arrive, and again whenever policies change.
 *
 * A workload may name policies that arrive a moment later, since a control plane sends workloads
 * first, or that were refused. The original goes on without them, which may allow what they deny.
 * Here a connection waits a bounded time for them; then the operator's choice decides.
 *
 * @see spec data-path 4.7 and 7.2, control-plane correction B1
 */
import type { RbacConnection } from "../mesh/authorization.ts";
import type { Workload } from "../mesh/workload.ts";
import { evaluatePolicies, type Verdict } from "../rbac/evaluate.ts";
import type { Clock } from "../runtime/clock.ts";
import type { MeshState } from "../state/mesh-state.ts";
import type { Logger, LogLevel } from "../telemetry/logger.ts";
import { ConnectionTracker, describeConnection } from "./connection-tracker.ts";
import type { Stoppable } from "./live-set.ts";
import { type ProxyError, policyChangeError, policyRejectionError } from "./proxy-error.ts";
import type { ProxyOptions } from "./proxy-options.ts";
import type { TrafficMetrics } from "./traffic-metrics.ts";

export type PolicyEnforcerOptions = Pick<
  ProxyOptions,
  "policyInfoLogging" | "unknownPolicy" | "unknownPolicyWaitMs"
>;

export class PolicyEnforcer {
  readonly #mesh: MeshState;
  readonly #clock: Clock;
  readonly #traffic: TrafficMetrics;
  readonly #options: PolicyEnforcerOptions;
  readonly #tracker = new ConnectionTracker();
  readonly #log: Logger;
  readonly #stateLog: Logger;
  readonly #traceLevel: LogLevel;
  #stopWatching: (() => void) | undefined;

  /** @param log of the workload's proxy, with its span. */
  constructor(
    deps: {
      readonly mesh: MeshState;
      readonly clock: Clock;
      readonly traffic: TrafficMetrics;
      readonly log: Logger;
    },
    options: PolicyEnforcerOptions,
  ) {
    this.#mesh = deps.mesh;
    this.#clock = deps.clock;
    this.#traffic = deps.traffic;
    this.#options = options;
    this.#log = deps.log.target("ztunnel::proxy::connection_manager");
    this.#stateLog = deps.log.target("ztunnel::state");
    this.#traceLevel = options.policyInfoLogging ? "info" : "debug";
  }

  /** From now on until {@link close} policy changes end the connections that they deny. Call once. */
  watch(): void {
    this.#stopWatching = this.#mesh.onChange((change) => {
      if (change.policiesChanged) this.#judgeAll();
    });
  }

  /**
   * Judges a new connection and keeps an eye on it until {@link release}. Settles at once unless
   * policies are missing; the connection may have ended meanwhile.
   *
   * @param host of the `forwarded` header.
   * @param span adds the connection to a log line; only called when something is written.
   * @returns why it is refused, or `undefined`.
   */
  admit(
    member: Stoppable,
    connection: RbacConnection,
    workload: Workload,
    host: string | undefined,
    span: (log: Logger) => Logger,
  ): ProxyError | undefined | Promise<ProxyError | undefined> {
    this.#tracker.register(member, connection, workload, host);
    if (this.#mesh.policiesFor(workload).unknown.length === 0) {
      return this.#refusal(connection, workload, span);
    }
    return this.#policiesKnown(workload).then((unknown) => {
      if (unknown.length > 0 && this.#denyUnknown(unknown, span)) {
        return policyRejectionError(`unknown policy: ${unknown.join(", ")}`);
      }
      return this.#refusal(connection, workload, span);
    });
  }

  /** Idempotent. */
  release(member: Stoppable): void {
    this.#tracker.release(member);
  }

  /** Idempotent. */
  close(): void {
    this.#stopWatching?.();
  }

  #refusal(
    connection: RbacConnection,
    workload: Workload,
    span: (log: Logger) => Logger,
  ): ProxyError | undefined {
    const verdict = this.#judge(connection, workload, span);
    return verdict.kind === "allow" ? undefined : policyRejectionError(verdict.reason);
  }

  /** @returns what is still missing when the time is over. */
  #policiesKnown(workload: Workload): Promise<readonly string[]> {
    return new Promise((resolve) => {
      const look = (): readonly string[] => this.#mesh.policiesFor(workload).unknown;
      const settle = (unknown: readonly string[]): void => {
        stopListening();
        timer.cancel();
        resolve(unknown);
      };
      const stopListening = this.#mesh.onChange(() => {
        const unknown = look();
        if (unknown.length === 0) settle(unknown);
      });
      const timer = this.#clock.after(this.#options.unknownPolicyWaitMs, () => settle(look()));
    });
  }

  #denyUnknown(unknown: readonly string[], span: (log: Logger) => Logger): boolean {
    const { unknownPolicy } = this.#options;
    this.#traffic.unknownPolicy(unknownPolicy);
    for (const key of unknown) {
      const what = unknownPolicy === "deny" ? "denying because of" : "skipping";
      span(this.#stateLog).write("warn", `${what} unknown policy ${key}`);
    }
    return unknownPolicy === "deny";
  }

  /** With the policies as they are, and the workloads as they were: what is unknown now was removed. */
  #judgeAll(): void {
    for (const { connection, workload, members } of this.#tracker.tracked()) {
      if (this.#judge(connection, workload, (log) => log).kind === "allow") continue;
      this.#log.write(
        "info",
        `connection ${describeConnection(connection)} (${workload.uid}) closed because it's no longer allowed after a policy update`,
      );
      for (const member of [...members]) member.stop("reset", policyChangeError());
    }
  }

  #judge(connection: RbacConnection, workload: Workload, span: (log: Logger) => Logger): Verdict {
    const { policies } = this.#mesh.policiesFor(workload);
    if (!this.#stateLog.enabled(this.#traceLevel)) return evaluatePolicies(policies, connection);
    const log = span(this.#stateLog);
    return evaluatePolicies(policies, connection, (event, policyKey) => {
      log.write(this.#traceLevel, event, policyKey === undefined ? [] : [["policy", policyKey]]);
    });
  }
}
