/**
 * IPv6 through the whole path: pods that have it only, both, or IPv4 only, and services of one family
 * whose endpoints are of the other.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { stringify } from "yaml";
import { WireCapture } from "../../src/embedded/wire-capture.ts";
import { Netns } from "../../src/net/netns.ts";
import { parseJsonLine } from "../support/access-line.ts";
import {
  connectFrom,
  type LabServer,
  listenDoubling,
  socketOf,
  tellStory,
} from "../support/lab-application.ts";
import type { LabNode } from "../support/lab-node.ts";
import { DOMAIN } from "../support/mesh-entries.ts";
import { type LabPod, MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { waitUntil } from "../support/wait-until.ts";

const PORT = 8080;
const PORTS = new Map([[80, PORT]]);
const timeout = 120_000;
const NO_IPV4 = "ip -4 addr flush dev eth0";
const NO_IPV6 = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6";

/** Name → the last number of its addresses, and of which families it has one. */
const PODS = {
  "node-a": { six: [16, "6"], both: [14, "46"], four: [12, "4"] },
  "node-b": {
    sixserver: [26, "6"],
    bothserver: [24, "46"],
    fourserver: [22, "4"],
    guarded: [28, "46"],
  },
  "node-c": { old: [34, "46"] },
} as const;
const v4 = (number: number): string => `10.83.0.${number}`;
const v6 = (number: number): string => `fd83::${number}`;
const OUTSIDE = 41;

/** Service → its number, the families of its addresses, what it says of them, its endpoint. */
const SERVICES = {
  dual: [1, "46", "Dual", "bothserver"],
  plain4: [2, "4", "IPv4", "bothserver"],
  plain6: [3, "6", "IPv6", "bothserver"],
  /** Known by an IPv4 address, to be reached over IPv6. */
  claims6: [4, "4", "IPv6", "bothserver"],
  tosix: [5, "46", "Dual", "sixserver"],
  tofour: [6, "46", "Dual", "fourserver"],
} as const;
const vip4 = (name: keyof typeof SERVICES): string => `10.83.1.${SERVICES[name][0]}`;
const vip6 = (name: keyof typeof SERVICES): string => `fd83::1:${SERVICES[name][0]}`;

describe("IPv6 and dual stack", {
  skip: requireNetns("iptables", "ip6tables"),
  concurrency: false,
}, () => {
  let lab: MeshLab;
  /** Of every frame between pods: all pass the bridge. */
  let capture: WireCapture;
  let wire: Netns;
  const servers = new Map<string, LabServer>();
  before(async () => {
    lab = await startLab();
    wire = Netns.open(lab.host("six").path.replace(/six$/, "bridge"));
    capture = new WireCapture(wire, "hello world");
    lab.addHost("outside", v4(OUTSIDE), v6(OUTSIDE));
    for (const name of ["sixserver", "bothserver", "fourserver", "guarded", "old", "outside"]) {
      servers.set(name, listenDoubling(lab.host(name), PORT));
    }
  });
  after(async () => {
    for (const server of servers.values()) server.close();
    capture?.close();
    wire?.close();
    await lab?.close();
  });

  /** What the two ends log and the application sees of one call, `undefined` where there is no proxy. */
  async function call(from: string, ip: string, port: number, to: string) {
    const [source, destination] = [nodeOf(lab, from), nodeOf(lab, to)];
    const counts = [source, destination].map((node) => node && accessLines(node).length);
    const app = servers.get(to);
    const peerCount = app?.peers.length ?? 0;
    const story = await tellStory(lab.host(from), ip, port);
    const [outbound, inbound] = await Promise.all([
      source && nextLine(source, counts[0] ?? 0, "outbound"),
      destination && nextLine(destination, counts[1] ?? 0, "inbound"),
    ]);
    return { story, outbound, inbound, peer: app?.peers[peerCount] };
  }

  const MESHED: readonly [
    title: string,
    ...call: [from: string, ip: string, port: number, to: string],
    seen: { readonly via: string; readonly peer: string },
  ][] = [
    [
      "a pod with IPv6 calls one with IPv6",
      "six",
      v6(26),
      PORT,
      "sixserver",
      { via: v6(26), peer: v6(16) },
    ],
    [
      "a pod with IPv6 calls one with both",
      "six",
      v6(24),
      PORT,
      "bothserver",
      { via: v6(24), peer: v6(16) },
    ],
    [
      "a pod with IPv4 calls one with both",
      "four",
      v4(24),
      PORT,
      "bothserver",
      { via: v4(24), peer: v4(12) },
    ],
    [
      "a pod with both calls one with both by IPv4",
      "both",
      v4(24),
      PORT,
      "bothserver",
      { via: v4(24), peer: v4(14) },
    ],
    [
      "a pod with both calls one with both by IPv6",
      "both",
      v6(24),
      PORT,
      "bothserver",
      { via: v6(24), peer: v6(14) },
    ],
    [
      "an IPv4 address written as IPv6 is IPv4",
      "both",
      `::ffff:${v4(24)}`,
      PORT,
      "bothserver",
      { via: v4(24), peer: v4(14) },
    ],
    [
      "a dual service by IPv4",
      "both",
      vip4("dual"),
      80,
      "bothserver",
      { via: v4(24), peer: v4(14) },
    ],
    [
      "a dual service by IPv6",
      "both",
      vip6("dual"),
      80,
      "bothserver",
      { via: v6(24), peer: v6(14) },
    ],
    [
      "a dual service, called by a pod with IPv4",
      "four",
      vip4("dual"),
      80,
      "bothserver",
      { via: v4(24), peer: v4(12) },
    ],
    [
      "a dual service, called by a pod with IPv6",
      "six",
      vip6("dual"),
      80,
      "bothserver",
      { via: v6(24), peer: v6(16) },
    ],
    ["a service of IPv4", "both", vip4("plain4"), 80, "bothserver", { via: v4(24), peer: v4(14) }],
    ["a service of IPv6", "both", vip6("plain6"), 80, "bothserver", { via: v6(24), peer: v6(14) }],
    [
      "a service that wants IPv6 gets it, called by IPv4",
      "both",
      vip4("claims6"),
      80,
      "bothserver",
      { via: v6(24), peer: v6(14) },
    ],
    [
      "an IPv4 service address in front of a pod with IPv6",
      "both",
      vip4("tosix"),
      80,
      "sixserver",
      { via: v6(26), peer: v6(14) },
    ],
    [
      "an IPv6 service address in front of a pod with IPv4",
      "both",
      vip6("tofour"),
      80,
      "fourserver",
      { via: v4(22), peer: v4(14) },
    ],
    [
      "a pod that calls itself through its service",
      "sixserver",
      vip6("tosix"),
      80,
      "sixserver",
      { via: v6(26), peer: v6(26) },
    ],
  ];
  for (const [title, from, ip, port, to, { via, peer }] of MESHED) {
    test(title, { timeout }, async () => {
      const { story, outbound, inbound, peer: seen } = await call(from, ip, port, to);
      assert.equal(story.received.length, 22, JSON.stringify(story));
      assert.equal(outbound?.["dst.addr"], host(via, 15008));
      assert.equal(outbound?.["dst.hbone_addr"], host(via, PORT));
      assert.equal(outbound?.["dst.workload"], to);
      assert.match(inbound?.["src.addr"] ?? "", startsWith(host(peer, "")));
      assert.equal(inbound?.["dst.addr"], host(via, 15008));
      assert.equal(inbound?.["dst.hbone_addr"], host(via, PORT));
      assert.equal(inbound?.["src.identity"], `spiffe://cluster.local/ns/default/sa/${from}`);
      // The same address for the application, never one of the proxy.
      assert.match(seen ?? "", startsWith(`${peer}:`));
    });
  }

  for (const to of ["sixserver", "bothserver"] as const) {
    test(`plaintext from outside over IPv6 to ${to}`, { timeout }, async () => {
      const ip = v6(PODS["node-b"][to][0]);
      const { story, inbound, peer } = await call("outside", ip, PORT, to);
      assert.equal(story.received.length, 22, JSON.stringify(story));
      assert.match(inbound?.["src.addr"] ?? "", startsWith(host(v6(OUTSIDE), "")));
      assert.equal(inbound?.["dst.addr"], host(ip, PORT));
      assert.match(peer ?? "", startsWith(`${v6(OUTSIDE)}:`));
    });
  }

  test("out of the mesh over IPv6, and to nobody there", { timeout }, async () => {
    const { story, outbound, peer } = await call("six", v6(OUTSIDE), PORT, "outside");
    assert.equal(story.received.length, 22, JSON.stringify(story));
    assert.equal(outbound?.["dst.addr"], host(v6(OUTSIDE), PORT));
    assert.match(peer ?? "", startsWith(`${v6(16)}:`));
    const refused = await call("six", v6(OUTSIDE), 1, "outside");
    assert.match(refused.story.end, /EOF|ECONNRESET/);
    assert.equal(refused.outbound?.["error"], "io error: Connection refused (os error 111)");
  });

  test("a pod with IPv4 can't reach one with IPv6 by a service either, and says why", {
    timeout,
  }, async () => {
    const { story, outbound } = await call("four", vip4("tosix"), 80, "outside");
    assert.match(story.end, /EOF|ECONNRESET/);
    assert.equal(outbound?.["dst.addr"], host(v6(26), 15008));
    assert.match(outbound?.["error"] ?? "", /^io error: .*\(os error \d+\)$/);
  });

  test("policies know IPv6 addresses", { timeout }, async () => {
    const allowed = await call("both", v6(28), PORT, "guarded");
    assert.equal(allowed.story.received.length, 22, JSON.stringify(allowed.story));
    for (const [from, ip] of [
      ["both", v4(28)],
      ["six", v6(28)],
    ] as const) {
      const { story, outbound, inbound } = await call(from, ip, PORT, "guarded");
      assert.equal(story.received, "");
      assert.match(
        inbound?.["error"] ?? "",
        /policy rejection: allow policies exist, but none allowed/,
      );
      assert.equal(outbound?.["error"], "http status: 401 Unauthorized");
    }
  });

  test("the proxy's own ports are no destination on ::1", { timeout }, async () => {
    const { story, outbound } = await call("six", "::1", 15001, "outside");
    assert.match(story.end, /EOF|ECONNRESET/);
    assert.equal(outbound?.["error"], "attempted recursive call to ourselves");
  });

  test("operators see addresses in brackets", { timeout }, async () => {
    const socket = await connectFrom(lab.host("six"), v6(26), PORT);
    const outbound = async (): Promise<{ src: string; actualDst: string }[]> => {
      const { workloadState } = JSON.parse(await lab.node("node-a").get(15000, "/config_dump"));
      return workloadState["node-a-0"].connections.outbound;
    };
    await waitUntil(async () => (await outbound()).length === 1, "the connection is not listed");
    const [one] = await outbound();
    assert.match(one?.src ?? "", startsWith(host(v6(16), "")));
    assert.equal(one?.actualDst, host(v6(26), 15008));
    socket.destroy();
  });

  test("IPV6_ENABLED=false listens on IPv4 only", { timeout }, async () => {
    const node = lab.node("node-c");
    const listening = node.lines
      .map((line) => JSON.parse(line))
      .filter(({ message }) => message === "listener established")
      .map(({ address }) => address.split(":").slice(0, -1).join(":"));
    assert.deepEqual([...new Set(listening)].sort(), ["0.0.0.0", "127.0.0.1"]);
    const { story, peer } = await call("both", v4(34), PORT, "old");
    assert.equal(story.received.length, 22, JSON.stringify(story));
    assert.match(peer ?? "", startsWith(`${v4(14)}:`));
    const out = await call("old", v4(24), PORT, "bothserver");
    assert.equal(out.story.received.length, 22, JSON.stringify(out.story));
    // The rules send it to where nobody listens.
    const attempt = socketOf(lab.host("old"), "ipv6");
    const error = await new Promise<NodeJS.ErrnoException>((resolve) => {
      attempt.once("error", resolve);
      attempt.connect(PORT, v6(24));
    });
    assert.equal(error.code, "ECONNREFUSED");
  });

  test("whatever was said so far between pods is not readable on the wire", {
    timeout,
  }, async () => {
    const pods = Object.values(PODS).flatMap((ofNode) =>
      Object.values(ofNode).flatMap(([number]) => [host(v4(number), ""), host(v6(number), "")]),
    );
    const isPod = (end: string): boolean => pods.some((pod) => end.startsWith(pod));
    const flows = capture.flows.filter(
      ({ source, destination }) => isPod(source) && isPod(destination),
    );
    for (const { source, destination, isTls } of flows) {
      assert.match(`${source} ${destination}`, /:15008( |$)/);
      assert.equal(isTls, true, `${source} ${destination}`);
    }
    // Every pair of the table, in the family by which it went.
    for (const [, from, , , to, { via, peer }] of MESHED.filter(
      ([, from, , , to]) => from !== to,
    )) {
      const isFound = flows.some(
        ({ source, destination }) =>
          source.startsWith(host(peer, "")) && destination === host(via, 15008),
      );
      assert.ok(isFound, `no tunnel from ${from} to ${to} by ${via}`);
    }
    // It can be read where it leaves the mesh or enters it.
    assert.ok(capture.markerCount > 0);
  });
});

type Fields = Readonly<Record<string, string>>;

function accessLines(node: LabNode): string[] {
  return node.lines.filter((line) => line.includes('"scope":"access"'));
}

/** The first one about a connection that ended since then. */
async function nextLine(node: LabNode, since: number, direction: string): Promise<Fields> {
  const found = (): Fields | undefined =>
    accessLines(node)
      .slice(since)
      .map((line) =>
        Object.fromEntries(parseJsonLine(line).fields.map(([k, v]) => [k, String(JSON.parse(v))])),
      )
      .find((fields) => fields["direction"] === direction);
  await waitUntil(() => found() !== undefined, `no ${direction} line`);
  return found() ?? {};
}

function nodeOf(lab: MeshLab, pod: string): LabNode | undefined {
  const found = Object.entries(PODS).find(([, pods]) => pod in pods);
  return found && lab.node(found[0]);
}

/** `[fd83::1]:80`, `10.83.0.1:80` */
function host(ip: string, port: number | ""): string {
  return ip.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}`;
}

function startsWith(text: string): RegExp {
  return new RegExp(`^${text.replace(/[.[\]]/g, "\\$&")}`);
}

function startLab(): Promise<MeshLab> {
  const podsOf = (node: keyof typeof PODS): LabPod[] =>
    Object.entries(PODS[node] as Readonly<Record<string, readonly [number, string]>>).map(
      ([name, [number, families]]) => ({
        name,
        ip: v4(number),
        ...(families.includes("6") ? { ipv6: v6(number) } : {}),
        ...(families === "6" ? { prepare: NO_IPV4 } : {}),
        ...(families === "4" ? { prepare: NO_IPV6 } : {}),
      }),
    );
  const environment = { LOG_FORMAT: "json", ZTUNNEL_WORKER_THREADS: "1" };
  return MeshLab.start({
    nodes: {
      "node-a": { ip: v4(2), environment, pods: podsOf("node-a") },
      "node-b": { ip: v4(3), environment, pods: podsOf("node-b") },
      "node-c": {
        ip: v4(4),
        environment: { ...environment, IPV6_ENABLED: "false" },
        pods: podsOf("node-c"),
      },
    },
    mesh: makeMesh(),
    controlIp: v4(5),
    prefixLength: 24,
    gatewayIp: v4(1),
  });
}

function makeMesh(): string {
  const workloads = Object.entries(PODS).flatMap(([node, pods]) =>
    Object.entries(pods as Readonly<Record<string, readonly [number, string]>>).map(
      ([name, [number, families]]) => ({
        ...{ uid: `lab//Pod/default/${name}`, name, namespace: "default", serviceAccount: name },
        ...{ trustDomain: "cluster.local", protocol: "HBONE", node },
        workloadIps: [
          ...(families.includes("4") ? [v4(number)] : []),
          ...(families.includes("6") ? [v6(number)] : []),
        ],
        services: Object.fromEntries(
          Object.entries(SERVICES).flatMap(([service, [, , , endpoint]]) =>
            endpoint === name ? [[`default/${service}.default.${DOMAIN}`, PORTS]] : [],
          ),
        ),
        authorizationPolicies: name === "guarded" ? ["default/by-address"] : [],
      }),
    ),
  );
  const services = Object.entries(SERVICES).map(([name, [, families, ipFamilies]]) => ({
    ...{ name, namespace: "default", hostname: `${name}.default.${DOMAIN}`, ipFamilies },
    vips: [
      ...(families.includes("4") ? [`/${vip4(name as keyof typeof SERVICES)}`] : []),
      ...(families.includes("6") ? [`/${vip6(name as keyof typeof SERVICES)}`] : []),
    ],
    ports: PORTS,
  }));
  const policies = [
    {
      ...{ name: "by-address", namespace: "default", scope: "WorkloadSelector", action: "Allow" },
      dryRun: false,
      rules: [[[{ sourceIps: [`${v6(14)}/128`] }]]],
    },
  ];
  return stringify({ workloads, services, policies });
}
