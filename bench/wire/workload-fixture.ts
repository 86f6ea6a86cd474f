/** Workloads as a big cluster has them, encoded one by one as they stand in a discovery response. */
import { encodeMessage } from "../../src/wire/message-codec.ts";
import { type PortList, Workload } from "../../src/wire/proto/istio-workload.ts";

/** Pods of 100 namespaces with one or two services each, some with waypoints and policies. */
export function encodedWorkloads(count: number): readonly Uint8Array[] {
  return Array.from({ length: count }, (_, i) => encodeMessage(Workload, workload(i)));
}

function workload(i: number): Workload {
  const namespace = `team-${i % 100}`;
  const app = `app-${i % 1000}`;
  const name = `${app}-${(0x5bd1e995 * (i + 1)) >>> 0}-${(i * 7919) % 99991}`;
  const services = new Map<string, PortList>([
    [
      `${namespace}/${app}.${namespace}.svc.cluster.local`,
      {
        ports: [
          { servicePort: 80, targetPort: 8080, appProtocol: 1 },
          { servicePort: 9090, targetPort: 9090, appProtocol: 3 },
        ],
      },
    ],
  ]);
  if (i % 3 === 0) {
    services.set(`${namespace}/all.${namespace}.svc.cluster.local`, {
      ports: [{ servicePort: 443, targetPort: 8443, appProtocol: 5 }],
    });
  }
  return {
    uid: `Kubernetes//Pod/${namespace}/${name}`,
    name,
    namespace,
    addresses: [new Uint8Array([10, 64 + (i >> 16), (i >> 8) & 255, i & 255])],
    hostname: "",
    network: "",
    tunnelProtocol: 1,
    trustDomain: "",
    serviceAccount: app,
    waypoint:
      i % 10 === 0
        ? {
            destination: {
              $case: "hostname",
              value: { namespace, hostname: `waypoint.${namespace}.svc.cluster.local` },
            },
            hboneMtlsPort: 15008,
          }
        : undefined,
    networkGateway: undefined,
    node: `node-${i % 500}.eu-central-1.compute.internal`,
    canonicalName: app,
    canonicalRevision: "latest",
    workloadType: 2,
    workloadName: app,
    nativeTunnel: false,
    authorizationPolicies: i % 5 === 0 ? [`${namespace}/allow-${app}`] : [],
    status: i % 50 === 0 ? 1 : 0,
    clusterId: "Kubernetes",
    services,
    applicationTunnel: undefined,
    locality: { region: "eu-central-1", zone: `eu-central-1${"abc"[i % 3]}`, subzone: "" },
    networkMode: 0,
    extensions: [],
    capacity: i % 7 === 0 ? 4 : undefined,
  };
}
