/**
 * 15006: plaintext captured on its way into the workload. Policies see it without an identity.
 *
 * @see spec data-path 5
 */
import type { SocketEnd } from "../engine/engine.ts";
import type { RbacConnection } from "../mesh/authorization.ts";
import type { Workload } from "../mesh/workload.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { Application } from "./application.ts";
import type { ConnectionDescription, ConnectionReporter } from "./connection-report.ts";
import { guessService } from "./inbound-target.ts";
import { LiveSet } from "./live-set.ts";
import type { LocalWorkload } from "./local-workload.ts";
import type { PolicyEnforcer } from "./policy-enforcer.ts";
import { type ConnectionOwner, ProxiedConnection } from "./proxied-connection.ts";
import { ProxyError, selfCallError } from "./proxy-error.ts";
import { illegalPorts, type ProxyDeps } from "./proxy-options.ts";

export interface InboundPassthroughDeps
  extends Pick<ProxyDeps, "engine" | "mesh" | "traffic" | "clock"> {
  /** With the span of the workload's proxy. */
  readonly log: Logger;
  readonly local: LocalWorkload;
  readonly reporter: ConnectionReporter;
  readonly enforcer: PolicyEnforcer;
  readonly application: Application;
}

export class InboundPassthrough implements ConnectionOwner {
  readonly live: LiveSet<ProxiedConnection> = new LiveSet();
  readonly #deps: InboundPassthroughDeps;
  readonly #options: { readonly network: string; readonly socks5: boolean };

  constructor(
    deps: InboundPassthroughDeps,
    options: { readonly network: string; readonly socks5: boolean },
  ) {
    this.#deps = deps;
    this.#options = options;
  }

  /**
   * Takes the end.
   *
   * @param transparent whether the application may be dialled with the client's address.
   */
  accept(end: SocketEnd, transparent: boolean): void {
    const connection = new ProxiedConnection(end, this);
    this.live.add(connection);
    this.#deps.traffic.socketOpened("destination");
    connection.guard(this.#serve(connection, end, transparent), this.#deps.log);
  }

  ended(connection: ProxiedConnection): void {
    this.#deps.enforcer.release(connection);
    this.live.delete(connection);
    this.#deps.traffic.socketClosed("destination");
  }

  async #serve(connection: ProxiedConnection, end: SocketEnd, transparent: boolean): Promise<void> {
    const { local, reporter, enforcer, log } = this.#deps;
    const startedAt = this.#deps.clock.monotonic();
    const target = end.originalDestination;
    const refuse = (error: ProxyError): void => {
      reporter.refused("inbound", end.peer, target, error);
      connection.fail(error);
    };
    if (illegalPorts(this.#options).has(target.port)) return refuse(selfCallError());
    const workload = local.find() ?? (await local.waitFor(() => log.target("ztunnel::state")));
    if (connection.ended) return;
    if (workload instanceof ProxyError) return refuse(workload);
    connection.opened(reporter.opened(this.#describe(workload, end), startedAt));
    const rbac: RbacConnection = {
      source: end.peer,
      sourceIdentity: undefined,
      destination: target,
      destinationNetwork: this.#options.network,
    };
    const denied = await enforcer.admit(connection, rbac, workload, undefined, (log) => log);
    if (connection.ended) return;
    if (denied !== undefined) return connection.fail(denied);
    try {
      const client = transparent ? end.peer.ip : undefined;
      const upstream = await this.#deps.application.connect(target, client);
      connection.relay(this.#deps.engine, end, upstream);
    } catch (error) {
      if (!(error instanceof ProxyError)) throw error;
      connection.fail(error);
    }
  }

  #describe(workload: Workload, end: SocketEnd): ConnectionDescription {
    const { mesh } = this.#deps;
    const { peer, originalDestination: target } = end;
    return {
      reporter: "destination",
      source: peer,
      originalDestination: undefined,
      actualDestination: target,
      sourceWorkload: mesh.findWorkloadByAddress(this.#options.network, peer.ip),
      sourceBaggage: undefined,
      sourceIdentity: undefined,
      destination: target,
      hboneAuthority: undefined,
      destinationService: guessService(mesh.servicesOf(workload), workload, target.port, undefined),
      destinationWorkload: workload,
      far: undefined,
      mutualTls: false,
    };
  }
}
