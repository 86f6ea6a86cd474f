/** The mesh's picture of the workload that a proxy stands for. It may come after the pod itself. */
import { workloadBaggage } from "../hbone/connect-request.ts";
import { type EnrolledWorkload, formatEnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { Identity } from "../mesh/identity.ts";
import type { Workload } from "../mesh/workload.ts";
import type { Clock } from "../runtime/clock.ts";
import type { MeshState } from "../state/mesh-state.ts";
import type { Logger } from "../telemetry/logger.ts";
import { localWorkloadError, type ProxyError } from "./proxy-error.ts";

export class LocalWorkload {
  readonly #mesh: MeshState;
  readonly #clock: Clock;
  readonly #enrolled: EnrolledWorkload;
  readonly #waitMs: number;
  /** One object for all connections. */
  #identity: Identity | undefined;
  #described: { readonly workload: Workload; readonly baggage: string } | undefined;

  constructor(
    deps: { readonly mesh: MeshState; readonly clock: Clock },
    enrolled: EnrolledWorkload,
    waitMs: number,
  ) {
    this.#mesh = deps.mesh;
    this.#clock = deps.clock;
    this.#enrolled = enrolled;
    this.#waitMs = waitMs;
  }

  find(): Workload | undefined {
    return this.#mesh.findLocalWorkload(this.#enrolled);
  }

  /** The node agent's word for names, the mesh's for the trust domain unless that is configured. */
  identity(workload: Workload): Identity {
    const { trustDomain = workload.trustDomain } = this.#enrolled;
    if (this.#identity?.trustDomain !== trustDomain) {
      const { namespace, serviceAccount } = this.#enrolled;
      this.#identity = { trustDomain, namespace, serviceAccount };
    }
    return this.#identity;
  }

  /** The workload as peers are told of it; made once for each of its states. */
  baggage(workload: Workload): string {
    if (this.#described?.workload !== workload) {
      this.#described = { workload, baggage: workloadBaggage(workload) };
    }
    return this.#described.baggage;
  }

  /**
   * Waits for the workload to appear.
   *
   * @param log written to when it does not.
   * @returns the error to refuse the connection with when it does not appear.
   */
  waitFor(log: () => Logger): Promise<Workload | ProxyError> {
    return new Promise((resolve) => {
      const found = this.find();
      if (found !== undefined) return resolve(found);
      const stopListening = this.#mesh.onChange((change) => {
        if (!change.workloadsChanged) return;
        const workload = this.find();
        if (workload !== undefined) settle(workload);
      });
      const timer = this.#clock.after(this.#waitMs, () => {
        const name = formatEnrolledWorkload(this.#enrolled);
        log().write("warn", `timed out waiting for workload '${name}' from xds`);
        settle(localWorkloadError(this.#enrolled));
      });
      function settle(workload: Workload | ProxyError): void {
        stopListening();
        timer.cancel();
        resolve(workload);
      }
    });
  }
}
