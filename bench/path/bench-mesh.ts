/** The mesh that benches run in: nodes named by a letter, and pods on each that are numbered from 0. */

export function podNames(node: string, count: number): readonly string[] {
  return Array.from({ length: count }, (_, i) => `pod-${node}-${i}`);
}

/**
 * What a daemon reads at its start.
 *
 * @param podIp the address of a node's n-th pod.
 * @returns JSON, which is YAML.
 */
export function meshText<Node extends string>(
  nodes: readonly Node[],
  podsPerNode: number,
  podIp: (node: Node, index: number) => string,
): string {
  const workloads = nodes.flatMap((node) =>
    podNames(node, podsPerNode).map((name, i) => ({
      uid: `bench//Pod/default/${name}`,
      name,
      namespace: "default",
      serviceAccount: name,
      trustDomain: "cluster.local",
      workloadIps: [podIp(node, i)],
      protocol: "HBONE",
      node: `node-${node}`,
      network: "",
      clusterId: "Kubernetes",
      workloadName: name,
      workloadType: "deployment",
      canonicalName: name,
      canonicalRevision: "v1",
      services: {},
    })),
  );
  return JSON.stringify({ workloads, services: [], policies: [] });
}
