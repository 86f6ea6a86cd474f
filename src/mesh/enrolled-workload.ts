/** A pod that the node agent has handed to this proxy (ZDS AddWorkload). */
export interface EnrolledWorkload {
  /** The Kubernetes pod UID. */
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  /** Where the configuration says it; of others the mesh does. */
  readonly trustDomain?: string;
}

/** `serviceAccount.namespace (name)`, as in the original's messages. */
export function formatEnrolledWorkload(workload: EnrolledWorkload): string {
  return `${workload.serviceAccount}.${workload.namespace} (${workload.name})`;
}
