/**
 * Two nodes and four pods, each a network namespace. A pod's cable ends in its node's bridge; the
 * nodes' bridges meet in a namespace of its own, the wire, where everything that passes between the
 * nodes can be watched.
 *
 * client, intruder ─ node-a ─── wire ─── node-b ─ server, storage
 */
import { type IpAddress, parseIpAddress } from "../mesh/ip-address.ts";
import { Netns } from "../net/netns.ts";
import { invariant } from "../runtime/invariant.ts";
import { requireCommand } from "./netns-command.ts";

export type NodeName = "node-a" | "node-b";
export type PodName = "client" | "intruder" | "server" | "storage";

export interface DemoPlace {
  /** Under /run/netns. */
  readonly name: string;
  readonly ip: IpAddress;
  readonly netns: Netns;
}

export interface DemoPod extends DemoPlace {
  readonly name: PodName;
  readonly node: NodeName;
}

export interface DemoNetwork {
  readonly nodes: Readonly<Record<NodeName, DemoPlace>>;
  readonly pods: Readonly<Record<PodName, DemoPod>>;
  /** Between the nodes. */
  readonly wire: Netns;
}

export const POD_NAMESPACE = "shop";

const NODES: Readonly<Record<NodeName, string>> = { "node-a": "10.77.0.2", "node-b": "10.77.0.3" };
const PODS: Readonly<Record<PodName, readonly [ip: string, node: NodeName]>> = {
  client: ["10.77.0.11", "node-a"],
  intruder: ["10.77.0.12", "node-a"],
  server: ["10.77.0.21", "node-b"],
  storage: ["10.77.0.22", "node-b"],
};
const PREFIX_LENGTH = 24;

/** Builds it all; the namespaces end with the mount namespace that holds their names. */
export async function buildDemoNetwork(): Promise<DemoNetwork> {
  const wire = await addNetns("wire", ["link add br0 type bridge", "link set br0 up"]);
  const nodes: Partial<Record<NodeName, DemoPlace>> = {};
  for (const [name, ip] of Object.entries(NODES) as [NodeName, string][]) {
    const netns = await addNetns(name, [
      "link add br0 type bridge",
      `addr add ${ip}/${PREFIX_LENGTH} dev br0`,
      "link set br0 up",
      `link add uplink type veth peer name ${name} netns wire`,
      "link set uplink master br0 up",
    ]);
    await ipBatch("wire", [`link set ${name} master br0 up`]);
    nodes[name] = { name, ip: requireIp(ip), netns };
  }
  const pods: Partial<Record<PodName, DemoPod>> = {};
  for (const [name, [ip, node]] of Object.entries(PODS) as [PodName, [string, NodeName]][]) {
    const netns = await addNetns(name, []);
    await ipBatch(node, [
      `link add ${name} type veth peer name eth0 netns ${name}`,
      `link set ${name} master br0 up`,
    ]);
    await ipBatch(name, [`addr add ${ip}/${PREFIX_LENGTH} dev eth0`, "link set eth0 up"]);
    pods[name] = { name, ip: requireIp(ip), node, netns };
  }
  return {
    nodes: nodes as Record<NodeName, DemoPlace>,
    pods: pods as Record<PodName, DemoPod>,
    wire,
  };
}

/**
 * The mesh as a file for the control plane: every pod speaks HBONE and is its own service account;
 * the server lets the client in and turns the intruder away.
 */
export function demoMeshFile(network: DemoNetwork): string {
  const workloads = Object.values(network.pods).map(
    ({ name, ip, node }) => `  - uid: demo//Pod/${POD_NAMESPACE}/${name}
    name: ${name}
    namespace: ${POD_NAMESPACE}
    serviceAccount: ${name}
    trustDomain: cluster.local
    workloadIps: [${ip}]
    protocol: HBONE
    node: ${node}
    network: ""
    clusterId: Kubernetes
    workloadName: ${name}
    workloadType: deployment
    canonicalName: ${name}
    canonicalRevision: v1
    services: {}
${name === "server" ? `    authorizationPolicies: [${POD_NAMESPACE}/allow-client, ${POD_NAMESPACE}/deny-intruder]\n` : ""}`,
  );
  const policies = (
    [
      ["allow-client", "Allow", "client"],
      ["deny-intruder", "Deny", "intruder"],
    ] as const
  ).map(
    ([name, action, peer]) => `  - name: ${name}
    namespace: ${POD_NAMESPACE}
    scope: WorkloadSelector
    action: ${action}
    dryRun: false
    rules:
      - - - principals: [!Exact "cluster.local/ns/${POD_NAMESPACE}/sa/${peer}"]
`,
  );
  return `workloads:\n${workloads.join("")}policies:\n${policies.join("")}`;
}

/** @returns the new namespace, loopback up, after the commands ran in it. */
async function addNetns(name: string, commands: readonly string[]): Promise<Netns> {
  await requireCommand(undefined, ["ip", "netns", "add", name]);
  await ipBatch(name, ["link set lo up", ...commands]);
  return Netns.open(`/run/netns/${name}`);
}

async function ipBatch(netnsName: string, commands: readonly string[]): Promise<void> {
  await requireCommand(
    undefined,
    ["ip", "-n", netnsName, "-batch", "-"],
    `${commands.join("\n")}\n`,
  );
}

function requireIp(text: string): IpAddress {
  const ip = parseIpAddress(text);
  invariant(ip !== undefined, `${text} is an address`);
  return ip;
}
