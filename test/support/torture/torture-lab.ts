/**
 * Two nodes with every way that a connection can go: tunnels, a service, IPv6, the same node, from
 * outside and to there, through a waypoint, into another network, and to a pod whose policy changes.
 */
import { constants } from "node:http2";
import { type HboneServer, listenHbone } from "../hbone-server.ts";
import { connectFrom } from "../lab-application.ts";
import { behind, DOMAIN, service, workload } from "../mesh-entries.ts";
import { MeshLab } from "../mesh-lab.ts";

const IP = {
  client: "10.87.0.11",
  friend: "10.87.0.12",
  server: "10.87.0.21",
  judged: "10.87.0.22",
  waypoint: "10.87.0.31",
  eastwest: "10.87.0.32",
  outside: "10.87.0.33",
} as const;
type HostName = keyof typeof IP;
const IPV6 = { client: "fd87::11", server: "fd87::21" } as const;
/** Of services, port 80. */
const VIP = { plain: "10.87.1.1", gated: "10.87.1.2", remote: "10.87.1.3" } as const;
export const APP_PORT = 8080;

export interface TorturePath {
  readonly from: HostName;
  readonly ip: string;
  readonly port: number;
  /** Whose application answers. */
  readonly to: HostName;
  /** Whether a daemon is there, too. */
  readonly hasInbound: boolean;
  /** False: policy may end or refuse a connection at any time. */
  readonly isSteady: boolean;
}

const steady = (
  from: HostName,
  ip: string,
  to: HostName,
  port: number = APP_PORT,
): TorturePath => ({
  from,
  ip,
  port,
  to,
  hasInbound: to !== "outside",
  isSteady: true,
});

export const TORTURE_PATHS: Readonly<Record<string, TorturePath>> = {
  HBONE: steady("client", IP.server, "server"),
  "HBONE back": steady("server", IP.client, "client"),
  "HBONE over IPv6": steady("client", IPV6.server, "server"),
  service: steady("client", VIP.plain, "server", 80),
  "own service": steady("server", VIP.plain, "server", 80),
  "same node": steady("friend", IP.client, "client"),
  "plaintext inbound": steady("outside", IP.server, "server"),
  passthrough: steady("client", IP.outside, "outside"),
  waypoint: steady("client", VIP.gated, "server", 80),
  "double HBONE": steady("friend", VIP.remote, "server", 80),
  "changing policy": { ...steady("client", IP.judged, "judged"), isSteady: false },
};

export interface TortureLabOptions {
  /** Of both nodes. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Shell lines that are run in each pod's namespace before anybody is there. */
  readonly prepare?: string;
  readonly logFolder?: string;
}

export class TortureLab {
  readonly lab: MeshLab;
  readonly #relays: readonly HboneServer[];

  private constructor(lab: MeshLab, relays: readonly HboneServer[]) {
    this.lab = lab;
    this.#relays = relays;
  }

  static async start(options: TortureLabOptions = {}): Promise<TortureLab> {
    const { prepare, logFolder } = options;
    const environment = {
      LOG_FORMAT: "json",
      // So that none is left to count when all is over.
      POOL_UNUSED_RELEASE_TIMEOUT: "1s",
      ...options.environment,
    };
    const pods = (...names: readonly HostName[]): MeshNode["pods"] =>
      names.map((name) => ({
        name,
        ip: IP[name],
        ...(name in IPV6 ? { ipv6: IPV6[name as keyof typeof IPV6] } : {}),
        ...(prepare === undefined ? {} : { prepare }),
      }));
    const lab = await MeshLab.start({
      nodes: {
        "node-a": { ip: "10.87.0.2", environment, pods: pods("client", "friend") },
        "node-b": { ip: "10.87.0.3", environment, pods: pods("server", "judged") },
      },
      outsiders: { waypoint: IP.waypoint, eastwest: IP.eastwest, outside: IP.outside },
      mesh: meshText(false),
      controlIp: "10.87.0.4",
      prefixLength: 24,
      gatewayIp: "10.87.0.1",
      ...(logFolder === undefined ? {} : { logFolder }),
    });
    try {
      return new TortureLab(lab, [
        await relayOn(lab, "waypoint", APP_PORT),
        await relayOn(lab, "eastwest", 15008),
      ]);
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  /** Whether the changing policy denies everybody from some moment soon on. */
  setDenied(isDenied: boolean): void {
    this.lab.changeMesh(meshText(isDenied));
  }

  async close(): Promise<void> {
    for (const relay of this.#relays) relay.close();
    await this.lab.close();
  }
}

type MeshNode = Parameters<typeof MeshLab.start>[0]["nodes"][string];

/** Ends tunnels, and passes every stream on to a port of the server. */
function relayOn(lab: MeshLab, host: HostName, port: number): Promise<HboneServer> {
  return listenHbone(lab, host, host, (stream) => {
    connectFrom(lab.host(host), IP.server, port).then(
      (socket) => {
        socket.once("error", () => stream.close(constants.NGHTTP2_CONNECT_ERROR));
        // What waits to be sent still is, unless the other side has given up.
        stream.once("close", () => {
          if (stream.rstCode === constants.NGHTTP2_NO_ERROR) socket.destroySoon();
          else socket.resetAndDestroy();
        });
        stream.pipe(socket).pipe(stream);
      },
      () => stream.close(constants.NGHTTP2_CONNECT_ERROR),
    );
  });
}

function meshText(isDenied: boolean): string {
  const both = (name: keyof typeof IPV6): readonly string[] => [IP[name], IPV6[name]];
  const remote = (entry: string): string => entry.replace('network: ""', "network: remote");
  const beyond =
    `- {uid: lab/far/server, name: far, namespace: default, serviceAccount: server, trustDomain: cluster.local, ` +
    `workloadIps: [], protocol: HBONE, network: remote, ` +
    `networkGateway: {destination: "remote/${IP.eastwest}", hboneMtlsPort: 15008}, ` +
    `services: {default/remote.default.${DOMAIN}: {80: ${APP_PORT}}}}`;
  const gate = `waypoint: {destination: "/${IP.waypoint}", hboneMtlsPort: 15008}`;
  const proof = 'subjectAltNames: ["spiffe://cluster.local/ns/default/sa/server"]';
  return `workloads:
${workload("client", both("client"), "node-a", behind())}
${workload("friend", IP.friend, "node-a", behind())}
${workload("server", both("server"), "node-b", behind("plain", "gated"))}
${workload("judged", IP.judged, "node-b", `${behind()}, authorizationPolicies: [default/changing]`)}
${workload("waypoint", IP.waypoint, "elsewhere", behind())}
${remote(workload("eastwest", IP.eastwest, "elsewhere", behind()))}
${beyond}
services:
${service("plain", VIP.plain)}
${service("gated", VIP.gated, gate)}
${service("remote", VIP.remote, proof)}
policies:
- {name: changing, namespace: default, scope: WorkloadSelector, action: Deny, dryRun: false, rules: [[[{destinationPorts: [${isDenied ? APP_PORT : 1}]}]]]}
`;
}
