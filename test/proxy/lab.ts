/** Two nodes in one memory network: what the stories about the data path are told with. */
import type {
  ClientTunnel,
  DialTunnelOptions,
  KeepAliveOptions,
  TunnelSettings,
} from "../../src/engine/engine.ts";
import type { Identity } from "../../src/mesh/identity.ts";
import type { IpAddress } from "../../src/mesh/ip-address.ts";
import type { WorkloadCertificate } from "../../src/mesh/workload-certificate.ts";
import type { ProxyOptions } from "../../src/proxy/proxy-options.ts";
import { RevocationGuard } from "../../src/proxy/revocation-guard.ts";
import type { FindAddress } from "../../src/proxy/socks5-handshake.ts";
import { TrafficMetrics } from "../../src/proxy/traffic-metrics.ts";
import { WorkloadProxy } from "../../src/proxy/workload-proxy.ts";
import { systemRandom } from "../../src/runtime/random.ts";
import { EndpointOutliers } from "../../src/state/endpoint-outliers.ts";
import type { SessionAffinity } from "../../src/state/session-affinity.ts";
import type { LogLevel } from "../../src/telemetry/logger.ts";
import { CapturedLog, formatFields } from "../support/captured-log.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { memoryCertificate } from "../support/memory-certificate.ts";
import { MemoryNetwork, type MemoryPod, quiet } from "../support/memory-engine.ts";
import type { MemorySocket } from "../support/memory-socket.ts";
import { type LiveMesh, liveMesh, makeAffinity, noHosts } from "../support/mesh-fixture.ts";
import { recordedMesh } from "./recorded-mesh.ts";

const KEEP_ALIVE: KeepAliveOptions = {
  idleMs: 180_000,
  intervalMs: 180_000,
  probes: 9,
  userTimeoutMs: undefined,
};

const TUNNEL: TunnelSettings = {
  streamWindowBytes: 4_194_304,
  connectionWindowBytes: 16_777_216,
  frameBytesMax: 1_048_576,
  headerListBytesMax: 65_536,
  streamsMax: 100,
  floodPercent: 100,
  pingIntervalMs: 10_000,
  pingTimeoutMs: 20_000,
  handshakeTimeoutMs: 30_000,
};

const OPTIONS: ProxyOptions = {
  network: "",
  listenIp: "::" as IpAddress,
  mark: 1337,
  reusePort: true,
  originalSource: "try",
  keepAlive: KEEP_ALIVE,
  acceptQueueMax: 128,
  localWorkloadWaitMs: 5000,
  connectRetriesMax: 2,
  outliers: undefined,
  affinity: { services: {}, clientsMax: 64 },
  connectTimeoutMs: 10_000,
  halfClosedIdleMs: 45_000,
  idleMs: undefined,
  clientTunnel: TUNNEL,
  serverTunnel: { ...TUNNEL, streamsMax: 200 },
  pool: {
    streamsPerConnectionMax: 100,
    unusedReleaseMs: 300_000,
    dialBackoffMaxMs: 100,
    connectionsMax: 500,
  },
  socks5: false,
  trustDomains: [],
  checkRevocation: false,
  tls12: false,
  postQuantumOnly: false,
  responseBaggage: true,
  localhostTunnel: true,
  policyInfoLogging: false,
  unknownPolicy: "deny",
  unknownPolicyWaitMs: 1000,
};

export interface LabOptions extends Partial<ProxyOptions> {
  /** For host names in SOCKS5. */
  readonly findAddress?: FindAddress;
}

/** One proxy process. */
export class Node {
  readonly mesh: LiveMesh;
  readonly log: CapturedLog;
  readonly traffic: TrafficMetrics = new TrafficMetrics();
  readonly revocations: RevocationGuard = new RevocationGuard(this.traffic);
  readonly outliers: EndpointOutliers | undefined;
  readonly affinity: SessionAffinity;
  readonly options: ProxyOptions;
  /** Replace to make certificates fail or differ. */
  certificateFor: (identity: Identity) => Promise<WorkloadCertificate>;
  /** Set before proxies are made, for a mesh that is learnt piece by piece. */
  learn: ((key: string) => Promise<void>) | undefined;
  /** Addresses of host names. */
  readonly hosts: Map<string, readonly IpAddress[]> = new Map();
  readonly #network: MemoryNetwork;
  readonly #clock: FakeClock;
  readonly #findAddress: FindAddress | undefined;

  constructor(
    name: "node-a" | "node-b",
    network: MemoryNetwork,
    clock: FakeClock,
    level: LogLevel,
    { findAddress, ...options }: LabOptions,
  ) {
    this.#findAddress = findAddress;
    this.#network = network;
    this.#clock = clock;
    this.mesh = liveMesh(name);
    this.mesh.apply(recordedMesh(name));
    this.log = new CapturedLog(level);
    this.options = { ...OPTIONS, ...options };
    this.affinity = makeAffinity(clock, this.options.affinity.services);
    this.outliers =
      options.outliers && new EndpointOutliers({ clock, changed() {} }, options.outliers);
    const issued = new Map<string, WorkloadCertificate>();
    this.certificateFor = async (identity) => {
      const known = issued.get(identity.serviceAccount) ?? memoryCertificate(identity);
      issued.set(identity.serviceAccount, known);
      return known;
    };
  }

  /** A proxy for a pod that is not listening yet. */
  proxy(name: string, pod: MemoryPod, serviceAccount: string = name): WorkloadProxy {
    return new WorkloadProxy(
      {
        engine: this.#network.engine,
        mesh: this.mesh,
        certificateFor: (identity) => this.certificateFor(identity),
        traffic: this.traffic,
        revocations: this.revocations,
        outliers: this.outliers,
        affinity: this.affinity,
        learn: this.learn,
        addressesOf: async (hostname) => this.hosts.get(hostname) ?? noHosts(hostname),
        log: this.log.root,
        clock: this.#clock,
        random: systemRandom(),
      },
      {
        ...this.options,
        workload: { uid: `uid-${name}`, name, namespace: "default", serviceAccount },
        role: "pod",
        netns: pod.netns,
        findAddress: this.#findAddress,
      },
    );
  }

  enroll(name: string, pod: MemoryPod, serviceAccount: string = name): WorkloadProxy {
    const proxy = this.proxy(name, pod, serviceAccount);
    proxy.listen();
    proxy.start();
    return proxy;
  }

  /** The access log as the plain format has it, without times. */
  access(): readonly string[] {
    return this.log.lines.filter(({ target }) => target === "access").map(plain);
  }
}

export interface Lab {
  readonly clock: FakeClock;
  readonly network: MemoryNetwork;
  readonly a: Node;
  readonly b: Node;
  readonly pods: ReadonlyMap<string, MemoryPod>;
  readonly proxies: ReadonlyMap<string, WorkloadProxy>;
  pod(name: string): MemoryPod;
  proxy(name: string): WorkloadProxy;
}

const CAPTURED_A = { client1: 11, client2: 12, stranger: 15 };
const CAPTURED_B = { server1: 21, server2: 22, server3: 23, server4: 24, liar: 25, mute: 26 };
const PLAIN = { outside: 31, echo: 32, plain: 33, stale: 34 };

/** The pods of the recordings, with echo servers behind ports 8080 and 8081. */
export function makeLab(level: LogLevel = "info", options: LabOptions = {}): Lab {
  const clock = new FakeClock();
  const network = new MemoryNetwork(clock);
  network.silent.add("10.98.0.1").add("10.98.0.9");
  const a = new Node("node-a", network, clock, level, options);
  const b = new Node("node-b", network, clock, level, options);
  const pods = new Map<string, MemoryPod>();
  const proxies = new Map<string, WorkloadProxy>();
  for (const [node, captured] of [
    [a, CAPTURED_A],
    [b, CAPTURED_B],
  ] as const) {
    for (const [name, host] of Object.entries(captured)) {
      const pod = network.pod(`10.77.0.${host}`, "captured");
      pods.set(name, pod);
      proxies.set(name, node.enroll(name, pod, name === "liar" ? "actual" : name));
    }
  }
  for (const [name, host] of Object.entries(PLAIN)) {
    pods.set(name, network.pod(`10.77.0.${host}`));
  }
  for (const name of ["server1", "server2", "server3", "echo", "plain"]) {
    for (const port of [8080, 8081]) pods.get(name)?.serve(port, echoTwice);
  }
  a.log.clear();
  b.log.clear();
  return {
    clock,
    network,
    a,
    b,
    pods,
    proxies,
    pod: (name) => known(pods, name),
    proxy: (name) => known(proxies, name),
  };
}

/** A peer without a proxy of ours: dials 15008 of a pod by hand. */
export function dialPeer(
  lab: Lab,
  from: MemoryPod,
  to: string,
  certificate: WorkloadCertificate,
): Promise<ClientTunnel> {
  return lab.network.engine.dialTunnel({
    ...dialOptions(from, to),
    tls: { certificate, verifyPeer: () => undefined, tls12: false, postQuantumOnly: false },
  });
}

export function dialOptions(from: MemoryPod, to: string): Omit<DialTunnelOptions, "tls"> {
  return {
    connect: {
      netns: from.netns,
      remote: { ip: to as IpAddress, port: 15008 },
      source: undefined,
      // Not captured by the pod's own proxy.
      mark: 1337,
      timeoutMs: 10_000,
      keepAlive: undefined,
    },
    settings: TUNNEL,
  };
}

/** Answers everything twice, and an end with an end. */
export function echoTwice(socket: MemorySocket): void {
  const look = (): void => {
    const text = socket.read();
    if (text !== "") socket.write(text + text);
    if (socket.readEnd === "fin") socket.end();
  };
  socket.onReadable = look;
  look();
}

/** What the recorded client does: greets, waits for the answer, ends, reads to the end. */
export async function greet(
  lab: Lab,
  from: MemoryPod,
  to: string,
  text = "hello world",
): Promise<{ received: string; end: string }> {
  const socket = from.dial(to);
  if (text !== "") socket.write(text);
  // Nothing in the recordings takes longer than a connect or the wait for a workload.
  for (let i = 0; i < 3; i++) {
    await quiet();
    if (socket.readEnd === "open" && socket.peekLength < 2 * text.length) {
      await lab.clock.advance(10_000);
    }
  }
  let received = socket.read();
  if (socket.readEnd === "open") socket.end();
  await quiet();
  received += socket.read();
  const end = socket.readEnd === "fin" ? "EOF" : socket.readEnd === "reset" ? "ECONNRESET" : "open";
  return { received, end };
}

function plain(line: CapturedLog["lines"][number]): string {
  const scope = [line.target.replace(/^ztunnel::/, ""), ...line.spans].join(":");
  return `${line.level}\t${scope}\t${line.message}\t${formatFields(line.fields)}`.trimEnd();
}

function known<T>(map: ReadonlyMap<string, T>, name: string): T {
  const value = map.get(name);
  if (value === undefined) throw new Error(`the lab has no ${name}`);
  return value;
}
