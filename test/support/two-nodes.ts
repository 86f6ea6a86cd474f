/**
 * The small mesh of most whole-path tests: `client` and `friend` on node-a, `server` and `guarded`
 * on node-b (only `friend` may call the latter), `outside` not in the mesh, and the service
 * {@link ECHO_VIP} in front of `server`.
 */
import { once } from "node:events";
import type { Socket } from "node:net";
import { connectFrom, type LabServer, listenOn } from "./lab-application.ts";
import { type LabPod, MeshLab } from "./mesh-lab.ts";
import type { LabHost } from "./netns-lab.ts";

export const ADDRESS = {
  client: "10.66.0.11",
  friend: "10.66.0.12",
  server: "10.66.0.21",
  guarded: "10.66.0.22",
  outside: "10.66.0.33",
} as const;

export const IPV6_ADDRESS = { client: "fd66::11", server: "fd66::21" } as const;

/** Port 80 is {@link APP_PORT} of `server`. */
export const ECHO_VIP = "10.66.1.1";
export const APP_PORT = 8080;

export interface TwoNodesOptions {
  readonly environment?: Readonly<Record<string, string>>;
  /** Of one node only. */
  readonly environmentOf?: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** What is special about a pod. */
  readonly pods?: Readonly<Partial<Record<PodName, Partial<LabPod>>>>;
}

type PodName = "client" | "friend" | "server" | "guarded";

/** Settles when both daemons are ready. */
export function startTwoNodes(options: TwoNodesOptions = {}): Promise<MeshLab> {
  const environment = (node: string): Record<string, string> => ({
    LOG_FORMAT: "json",
    ZTUNNEL_WORKER_THREADS: "1",
    ...options.environment,
    ...options.environmentOf?.[node],
  });
  const pod = (name: PodName, ipv6?: string): LabPod => ({
    name,
    ip: ADDRESS[name],
    ...(ipv6 === undefined ? {} : { ipv6 }),
    ...options.pods?.[name],
  });
  return MeshLab.start({
    nodes: {
      "node-a": {
        ip: "10.66.0.2",
        environment: environment("node-a"),
        pods: [pod("client", IPV6_ADDRESS.client), pod("friend")],
      },
      "node-b": {
        ip: "10.66.0.3",
        environment: environment("node-b"),
        pods: [pod("server", IPV6_ADDRESS.server), pod("guarded")],
      },
    },
    outsiders: { outside: ADDRESS.outside },
    mesh: TWO_NODES_MESH,
    controlIp: "10.66.0.4",
    prefixLength: 24,
    gatewayIp: "10.66.0.1",
  });
}

/** The ways of a connection through the proxies: who calls whom. */
export const PATHS = {
  HBONE: { from: "client", to: "server" },
  "plaintext inbound": { from: "outside", to: "server" },
  passthrough: { from: "client", to: "outside" },
} as const;

export type PathName = keyof typeof PATHS;

export interface Pair {
  readonly client: Socket;
  /** Paused until somebody reads. */
  readonly server: Socket;
}

/** Makes connections along a path and hands out both of their applications' ends. */
export class PairMaker {
  readonly #lab: MeshLab;
  readonly #from: string;
  readonly #ip: string;
  readonly #port: number;
  readonly #listening: LabServer;
  readonly #waiting: ((socket: Socket) => void)[] = [];
  readonly #clients: Socket[] = [];

  /** Listens at once. One connection at a time is being made. */
  constructor(
    lab: MeshLab,
    path: { readonly from: string; readonly to: string },
    port: number = APP_PORT,
  ) {
    this.#lab = lab;
    this.#from = path.from;
    this.#ip = lab.host(path.to).ipv4;
    this.#port = port;
    this.#listening = listenOn(lab.host(path.to), port, (socket) => {
      this.#waiting.shift()?.(socket);
    });
  }

  /** @param ip another address of the one that is called. */
  async make(ip: string = this.#ip): Promise<Pair> {
    const arrived = new Promise<Socket>((resolve) => {
      this.#waiting.push(resolve);
    });
    const client = await connectFrom(this.#lab.host(this.#from), ip, this.#port);
    this.#clients.push(client);
    return { client, server: await arrived };
  }

  /** Also destroys what it made. Idempotent. */
  close(): void {
    this.#listening.close();
    for (const client of this.#clients) client.destroy();
  }
}

/** Sends text through an echoing server once and hangs up. @throws what the client saw instead. */
export async function echoOnce(
  lab: MeshLab,
  from: string,
  ip: string,
  port: number = APP_PORT,
): Promise<void> {
  const socket = await connectFrom(lab.host(from), ip, port);
  await pingPong(socket);
  socket.destroy();
}

/** One message there and back. @returns milliseconds. @throws when the connection ends instead. */
export function pingPong(socket: Socket, bytes = 100): Promise<number> {
  return new Promise((resolve, reject) => {
    const startedAt = performance.now();
    let missing = bytes;
    const settle = (error?: Error): void => {
      socket.off("data", onData).off("error", settle).off("end", onEnd);
      if (error === undefined) resolve(performance.now() - startedAt);
      else reject(error);
    };
    const onData = (chunk: Buffer): void => {
      missing -= chunk.length;
      if (missing <= 0) settle();
    };
    const onEnd = (): void => settle(new Error("EOF instead of the echo"));
    socket.on("data", onData).on("error", settle).on("end", onEnd);
    socket.write(Buffer.alloc(bytes, "x"));
  });
}

/** A few bytes each way. */
export async function talk({ client, server }: Pair): Promise<void> {
  for (const [from, to] of [
    [client, server],
    [server, client],
  ] as const) {
    const heard = once(to, "data");
    from.write("hello");
    await heard;
  }
}

/** How a socket's reading ended: `EOF` or the errno's name. */
export function readingEnd(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    socket.once("end", () => resolve("EOF"));
    socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    socket.resume();
  });
}

/** The line of `ss` about a connection: state, unread bytes, … Empty when the kernel has none. */
export function kernelView(lab: MeshLab, host: LabHost, socket: Socket): () => string {
  const [own, peer] = [`:${socket.localPort}`, `:${socket.remotePort}`];
  const filter = ["state", "connected", "sport", "=", own, "dport", "=", peer];
  return () => lab.net.exec(host, "ss", "-Htna", ...filter);
}

const NO_SERVICES = `
    services: {}`;

const HBONE_PODS = [
  { name: "client", node: "node-a", ips: [ADDRESS.client, IPV6_ADDRESS.client], more: NO_SERVICES },
  { name: "friend", node: "node-a", ips: [ADDRESS.friend], more: NO_SERVICES },
  {
    name: "server",
    node: "node-b",
    ips: [ADDRESS.server, IPV6_ADDRESS.server],
    more: `
    services: { default/echo.default.svc.cluster.local: { 80: ${APP_PORT} } }`,
  },
  {
    name: "guarded",
    node: "node-b",
    ips: [ADDRESS.guarded],
    more: `${NO_SERVICES}
    authorizationPolicies: [default/friends]`,
  },
];

/** In the format of LOCAL_XDS_PATH. */
export const TWO_NODES_MESH: string = `workloads:
${HBONE_PODS.map(
  ({ name, node, ips, more }) => `  - uid: two-nodes//Pod/default/${name}
    name: ${name}
    namespace: default
    serviceAccount: ${name}
    trustDomain: cluster.local
    workloadIps: [${ips.map((ip) => `"${ip}"`).join(", ")}]
    protocol: HBONE
    node: ${node}
    network: ""
    clusterId: Kubernetes
    workloadName: ${name}
    workloadType: deployment
    canonicalName: ${name}
    canonicalRevision: v1${more}`,
).join("\n")}
services:
  - name: echo
    namespace: default
    hostname: echo.default.svc.cluster.local
    vips: ["/${ECHO_VIP}"]
    ports: { 80: ${APP_PORT} }
policies:
  - name: friends
    namespace: default
    scope: WorkloadSelector
    action: Allow
    dryRun: false
    rules: [[[{ principals: [!Exact cluster.local/ns/default/sa/friend] }]]]
`;
