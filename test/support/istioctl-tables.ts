/** What `istioctl ztunnel-config` makes of a `/config_dump`: its tables, row by row. */

interface Dump {
  readonly workloads: readonly DumpedWorkload[];
  readonly services: readonly DumpedService[];
  readonly policies: readonly Readonly<Record<"namespace" | "name" | "action" | "scope", string>>[];
  readonly certificates: readonly {
    readonly identity: string;
    readonly state: string;
    readonly certChain: readonly DumpedCertificate[];
    readonly rootCerts: readonly DumpedCertificate[];
  }[];
  readonly workloadState: Readonly<Record<string, DumpedPod>>;
}

interface DumpedWorkload {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly workloadIps: readonly string[];
  readonly hostname?: string;
  readonly node?: string;
  readonly waypoint?: { readonly destination: string };
  readonly protocol: string;
  readonly status: string;
}

interface DumpedService {
  readonly namespace: string;
  readonly name: string;
  readonly hostname: string;
  readonly vips: readonly string[];
  readonly waypoint?: { readonly destination: string };
  readonly endpoints: Readonly<Record<string, { readonly workloadUid: string }>>;
}

interface DumpedCertificate {
  readonly serialNumber: string;
  readonly validFrom: string;
  readonly expirationTime: string;
}

interface DumpedConnection {
  readonly src: string;
  readonly originalDst: string | null;
  readonly actualDst: string;
  readonly protocol: string;
}

interface DumpedPod {
  readonly info: { readonly name: string; readonly namespace: string };
  readonly connections?: {
    readonly inbound: readonly DumpedConnection[];
    readonly outbound: readonly DumpedConnection[];
  };
}

export interface IstioctlTables {
  /** NAMESPACE, POD NAME, ADDRESS, NODE, WAYPOINT, PROTOCOL */
  readonly workloads: readonly string[];
  /** NAMESPACE, SERVICE NAME, SERVICE VIP, WAYPOINT, ENDPOINTS */
  readonly services: readonly string[];
  /** NAMESPACE, POLICY NAME, ACTION, SCOPE */
  readonly policies: readonly string[];
  /** CERTIFICATE NAME, TYPE, STATUS, SERIAL NUMBER, NOT AFTER, NOT BEFORE; VALID CERT depends on the day */
  readonly certificates: readonly string[];
  /** WORKLOAD, DIRECTION, LOCAL, REMOTE, REMOTE TARGET, PROTOCOL */
  readonly connections: readonly string[];
}

/** Cells are joined by a space. @throws SyntaxError or TypeError where istioctl could not read it. */
export function istioctlTables(text: string): IstioctlTables {
  const dump = JSON.parse(text) as Dump;
  return {
    workloads: dump.workloads.map((workload) =>
      row(
        workload.namespace,
        workload.name,
        workload.workloadIps.join(",") || (workload.hostname ?? ""),
        workload.node ?? "",
        waypointName(workload.waypoint, dump.services),
        workload.protocol,
      ),
    ),
    services: dump.services.map((service) => {
      const endpoints = Object.values(service.endpoints);
      const healthy = endpoints.filter(({ workloadUid }) =>
        dump.workloads.some(({ uid, status }) => uid === workloadUid && status === "Healthy"),
      );
      return row(
        service.namespace,
        service.name,
        service.vips.map((vip) => vip.slice(vip.indexOf("/") + 1)).join(","),
        waypointName(service.waypoint, dump.services),
        `${healthy.length}/${endpoints.length}`,
      );
    }),
    policies: dump.policies.map(({ namespace, name, action, scope }) =>
      row(namespace, name, action, scope),
    ),
    certificates: dump.certificates.flatMap(({ identity, state, certChain, rootCerts }) => {
      const status = state.includes("Unavailable") ? "Unavailable" : state;
      if (certChain.length === 0) return [row(identity, "NA", status, "NA", "NA", "NA")];
      const line = (type: string, one: DumpedCertificate): string => {
        const serial = BigInt(one.serialNumber).toString(16);
        return row(identity, type, status, serial, one.expirationTime, one.validFrom);
      };
      return [
        ...certChain.map((one, index) => line(index === 0 ? "Leaf" : "Intermediate", one)),
        ...rootCerts.map((one) => line("Root", one)),
      ];
    }),
    connections: Object.values(dump.workloadState).flatMap((pod) => connectionRows(pod, dump)),
  };
}

function connectionRows({ info, connections }: DumpedPod, dump: Dump): string[] {
  const named = (address: string): string => nameOf(address, dump);
  const workload = `${info.name}.${info.namespace}`;
  const { inbound = [], outbound = [] } = connections ?? {};
  return [
    ...inbound.map(({ src, originalDst, actualDst, protocol }) =>
      row(workload, "Inbound", named(actualDst), named(src), originalDst ?? "", protocol),
    ),
    ...outbound.map(({ src, originalDst, actualDst, protocol }) =>
      row(workload, "Outbound", named(src), named(actualDst), named(originalDst ?? ""), protocol),
    ),
  ];
}

function nameOf(address: string, { services, workloads }: Dump): string {
  const colon = address.lastIndexOf(":");
  const ip = address.slice(0, colon).replace(/^\[|\]$/g, "");
  const port = address.slice(colon + 1);
  const service = services.find(({ vips }) => vips[0]?.slice(vips[0].indexOf("/") + 1) === ip);
  if (service !== undefined) return `${service.hostname}:${port}`;
  const workload = workloads.find(({ workloadIps }) => workloadIps[0] === ip);
  return workload === undefined ? address : `${workload.name}.${workload.namespace}:${port}`;
}

function waypointName(
  waypoint: { readonly destination: string } | undefined,
  services: readonly DumpedService[],
): string {
  if (waypoint === undefined) return "None";
  const { destination } = waypoint;
  const service = services.find(
    ({ namespace, hostname, vips }) =>
      `${namespace}/${hostname}` === destination || vips.includes(destination),
  );
  return service?.name ?? "NA";
}

function row(...cells: readonly string[]): string {
  return cells.join(" ");
}
