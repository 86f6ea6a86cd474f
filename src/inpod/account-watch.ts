/** Notices when the last pod of a service account has left this node. */
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { StoppingWorkload, WorkloadLauncher } from "./workload-reconciler.ts";

export interface AccountWatchDeps {
  readonly launcher: WorkloadLauncher;
  /** Called after the last connection of that pod has ended; whoever comes later starts anew. */
  readonly lastLeft: (workload: EnrolledWorkload) => void;
}

/** A launcher in front of another. */
export class AccountWatch implements WorkloadLauncher {
  readonly #deps: AccountWatchDeps;
  /** Key is the uid. */
  readonly #here = new Map<string, EnrolledWorkload>();

  /** @param resident the daemon's own pod, which never leaves; its account counts as well. */
  constructor(deps: AccountWatchDeps, resident: EnrolledWorkload | undefined) {
    this.#deps = deps;
    if (resident !== undefined) this.#here.set(resident.uid, resident);
  }

  async startWorkload(workload: EnrolledWorkload, netnsFd: number): Promise<void> {
    await this.#deps.launcher.startWorkload(workload, netnsFd);
    this.#here.set(workload.uid, workload);
  }

  stopWorkload(uid: string, drainMs: number): StoppingWorkload {
    const left = this.#here.get(uid);
    this.#here.delete(uid);
    const { portsFree, ended } = this.#deps.launcher.stopWorkload(uid, drainMs);
    const noticed = ended.then(() => {
      if (left === undefined) return;
      const isLast = ![...this.#here.values()].some((other) => haveSameAccount(left, other));
      if (isLast) this.#deps.lastLeft(left);
    });
    return { portsFree, ended: noticed };
  }
}

function haveSameAccount(one: EnrolledWorkload, other: EnrolledWorkload): boolean {
  return one.namespace === other.namespace && one.serviceAccount === other.serviceAccount;
}
