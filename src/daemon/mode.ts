/** Whose connections the daemon carries, and how it comes to know: one node's pods, or one workload. */
import type { ReadinessStanding } from "../admin/readiness-report.ts";
import type { WorkloadStanding } from "../inpod/workload-reconciler.ts";

export interface Mode {
  /**
   * Opens what does not need the mesh.
   *
   * @throws what stands in the way: a missing privilege, a port that is taken.
   */
  prepare(): Promise<void>;
  /**
   * Carries connections from now on; call when the mesh is known.
   *
   * @param signal no workload is taken on any more; those that are carried go on.
   * @returns settled when the signal has been aborted, or before.
   * @throws Error when the daemon can't go on.
   */
  run(signal: AbortSignal): Promise<void>;
  /** Every workload that is ours, or was and has connections that go on. */
  workloads(): readonly WorkloadStanding[];
  nodeAgent(): ReadinessStanding["nodeAgent"];
  /** Of a workload that runs here; `undefined` where there is none but the daemon's own. */
  netnsFd(uid: string): number | undefined;
}
