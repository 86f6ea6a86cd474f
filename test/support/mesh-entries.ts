/** Entries of a lab's mesh file, one line each. */

export const DOMAIN = "svc.cluster.local";

/**
 * @param ip one or several.
 * @param more of its fields; `services` has to be among them.
 */
export function workload(
  name: string,
  ip: string | readonly string[],
  node: string,
  more: string,
): string {
  return (
    `- {uid: lab//Pod/default/${name}, name: ${name}, namespace: default, serviceAccount: ${name}, ` +
    `trustDomain: cluster.local, workloadIps: ${JSON.stringify([ip].flat())}, node: ${node}, network: "", ` +
    `clusterId: Kubernetes, workloadName: ${name}, workloadType: deployment, canonicalName: ${name}, ` +
    `canonicalRevision: v1, ${more}}`
  );
}

/** Port 80 is 8080 of its endpoints. */
export function service(name: string, vip: string, more = ""): string {
  return (
    `- {name: ${name}, namespace: default, hostname: ${name}.default.${DOMAIN}, ` +
    `vips: ["/${vip}"], ports: {80: 8080}, ${more}}`
  );
}

/** A workload that speaks HBONE and is an endpoint of {@link service}s. */
export function behind(...services: string[]): string {
  const all = services.map((name) => `default/${name}.default.${DOMAIN}: {80: 8080}`);
  return `protocol: HBONE, services: {${all.join(", ")}}`;
}
