/**
 * The mesh of the churn soak as Kubernetes objects: pods that stay and that come and go, a service
 * before some of them, and policies whose answer for one pair of pods changes.
 */
import { stringify } from "yaml";

const NAMESPACE = "default";
/** Of the service that stands before every ready pod with `role: pool`. */
export const POOL_VIP = "10.82.255.1";
const TRUST_DOMAIN = "cluster.local";

export interface ChurnPod {
  readonly name: string;
  readonly ip: string;
  readonly node: string;
  readonly serviceAccount: string;
  /** Whether it stands behind the service while it is ready. */
  readonly isPooled: boolean;
  readonly isReady: boolean;
}

export interface ChurnMesh {
  readonly pods: readonly ChurnPod[];
  /** Counted up with every change; see {@link generationOf}. */
  readonly generation: number;
  /** Whether the policy of the server whose rules change names the changing pair's client. */
  readonly isAllowedByRule: boolean;
  /** Whether a policy that denies everything selects the other changing server. */
  readonly isDeniedByPolicy: boolean;
}

/** Who calls whom in the pairs that policies are about; all are pods that stay. */
export const GUARDED = {
  /** Its policy lists clients 0 and 1, ever. */
  steady: "server-1",
  /** Its policy lists client 2 or another. */
  ruled: "server-2",
  /** A policy against all comes and goes. */
  denied: "server-3",
} as const;

/** The text of the mesh file. */
export function churnMeshText(mesh: ChurnMesh): string {
  const { pods, generation, isAllowedByRule, isDeniedByPolicy } = mesh;
  const ruled = isAllowedByRule ? ["client-2"] : ["client-0"];
  return [
    { apiVersion: "v1", kind: "Namespace", metadata: { name: NAMESPACE } },
    ...pods.map(pod),
    service(),
    policy("steady", GUARDED.steady, "ALLOW", from("client-0", "client-1")),
    policy("ruled", GUARDED.ruled, "ALLOW", from(...ruled)),
    ...(isDeniedByPolicy ? [policy("denied", GUARDED.denied, "DENY", [{}])] : []),
    // Selects nobody. Policies are sent after addresses, so who has it has all of the change.
    policy(`${GENERATION}${generation}`, "nobody", "ALLOW", from("nobody")),
  ]
    .map((document) => stringify(document))
    .join("---\n");
}

const GENERATION = "generation-";

/** Which change a daemon has taken in, by the names of its policies; -1: none. */
export function generationOf(policyNames: readonly string[]): number {
  const found = policyNames.filter((name) => name.startsWith(GENERATION));
  return Math.max(-1, ...found.map((name) => Number(name.slice(GENERATION.length))));
}

function pod({ name, ip, node, serviceAccount, isPooled, isReady }: ChurnPod): object {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name,
      namespace: NAMESPACE,
      uid: `uid-of-${name}`,
      labels: { app: name, ...(isPooled ? { role: "pool" } : {}) },
      annotations: { "ambient.istio.io/redirection": "enabled" },
    },
    spec: {
      serviceAccountName: serviceAccount,
      nodeName: node,
      containers: [{ name: "app", ports: [{ containerPort: 8080 }] }],
    },
    status: {
      phase: "Running",
      podIP: ip,
      podIPs: [{ ip }],
      conditions: [{ type: "Ready", status: isReady ? "True" : "False" }],
    },
  };
}

function service(): object {
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: "pool", namespace: NAMESPACE },
    spec: {
      clusterIP: POOL_VIP,
      clusterIPs: [POOL_VIP],
      selector: { role: "pool" },
      ports: [{ port: 8080, targetPort: 8080 }],
    },
  };
}

function policy(name: string, app: string, action: string, rules: readonly object[]): object {
  return {
    apiVersion: "security.istio.io/v1",
    kind: "AuthorizationPolicy",
    metadata: { name, namespace: NAMESPACE },
    spec: { selector: { matchLabels: { app } }, action, rules },
  };
}

function from(...accounts: readonly string[]): readonly object[] {
  const principals = accounts.map((account) => `${TRUST_DOMAIN}/ns/${NAMESPACE}/sa/${account}`);
  return [{ from: [{ source: { principals } }] }];
}
