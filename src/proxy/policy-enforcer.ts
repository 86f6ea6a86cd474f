/**
 * Judges inbound connections: when they arrive, and again whenever policies change.
 *
 * @see spec data-path 4.7 and 7.2
 */
import type { RbacConnection } from "../mesh/authorization.ts";
import type { Workload } from "../mesh/workload.ts";
import { evaluatePolicies, type Verdict } from "../rbac/evaluate.ts";
import type { MeshState } from "../state/mesh-state.ts";
import type { Logger, LogLevel } from "../telemetry/logger.ts";
import { ConnectionTracker, describeConnection } from "./connection-tracker.ts";
import type { Stoppable } from "./live-set.ts";
import { type ProxyError, policyChangeError, policyRejectionError } from "./proxy-error.ts";

export class PolicyEnforcer {
  readonly #mesh: MeshState;
  readonly #tracker = new ConnectionTracker();
  readonly #log: Logger;
  readonly #stateLog: Logger;
  readonly #traceLevel: LogLevel;
  #stopWatching: (() => void) | undefined;

  /** @param log of the workload's proxy, with its span. */
  constructor(
    deps: { readonly mesh: MeshState; readonly log: Logger },
    options: { readonly policyInfoLogging: boolean },
  ) {
    this.#mesh = deps.mesh;
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
   * Judges a new connection and keeps an eye on it until {@link release}.
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
  ): ProxyError | undefined {
    this.#tracker.register(member, connection, workload, host);
    const verdict = this.#judge(connection, workload, span);
    return verdict.kind === "allow" ? undefined : policyRejectionError(verdict.reason);
  }

  /** Idempotent. */
  release(member: Stoppable): void {
    this.#tracker.release(member);
  }

  /** Idempotent. */
  close(): void {
    this.#stopWatching?.();
  }

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
    const { policies, unknown } = this.#mesh.policiesFor(workload);
    for (const key of unknown) {
      span(this.#stateLog).write("warn", `skipping unknown policy ${key}`);
    }
    if (!this.#stateLog.enabled(this.#traceLevel)) return evaluatePolicies(policies, connection);
    const log = span(this.#stateLog);
    return evaluatePolicies(policies, connection, (event, policyKey) => {
      log.write(this.#traceLevel, event, policyKey === undefined ? [] : [["policy", policyKey]]);
    });
  }
}
