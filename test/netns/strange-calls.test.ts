/**
 * CONNECTs that no proxy of ours would send, and calls to the ports of the daemons themselves: the
 * rows about them in spec data-path 13.1, by their names.
 */
import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { after, before, describe, test } from "node:test";
import { parseJsonLine } from "../support/access-line.ts";
import { ConnectClient } from "../support/connect-client.ts";
import { connectFrom, type LabServer, listenDoubling } from "../support/lab-application.ts";
import { behind, DOMAIN, service, workload } from "../support/mesh-entries.ts";
import { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { waitUntil } from "../support/wait-until.ts";

const CLIENT = "10.82.0.11";
const SERVER = "10.82.0.21";
const GUARDED = "10.82.0.22";
const OUTSIDE = "10.82.0.31";
const NODE = "10.82.0.2";
const VIP = "10.82.1.1";
/** Another name of the trust domain, as while it moves from one to another. */
const ALIAS = "old.example";

type Outcome = "refused" | "cut" | "HTTP 400" | "HTTP 404";

describe("strange calls", { skip: requireNetns("iptables") }, () => {
  let lab: MeshLab;
  let peer: ConnectClient;
  const servers: LabServer[] = [];

  before(async () => {
    lab = await startLab();
    servers.push(listenDoubling(lab.host("server"), 8080));
    peer = await ConnectClient.dial(lab, "outside", SERVER);
  });

  after(async () => {
    for (const server of servers) server.close();
    peer?.close();
    await lab?.close();
  });

  const errors = (): unknown[] =>
    lab
      .node("node-b")
      .lines.filter((line) => line.includes('"scope":"access"'))
      .map((line) => Object.fromEntries(parseJsonLine(line).fields)["error"]);

  const errorComes = (error: string): Promise<void> =>
    waitUntil(() => errors().at(-1) === JSON.stringify(error), `no line says ${error}`);

  test("test_svc_hostname_port", async () => {
    await peer.tryOut(`server.default.${DOMAIN}:80`);
  });

  test("test_svc_hostname_named_port", async () => {
    await peer.tryOut(`named.default.${DOMAIN}:80`);
  });

  test("hbone_ip_mismatch", async () => {
    assert.equal(await peer.status(`${CLIENT}:8080`), 400);
    await errorComes(`ip mismatch: ${SERVER} != ${CLIENT}`);
    assert.equal(await peer.status(`${VIP}:80`), 400, "its own service's address");
  });

  test("test_policy", async () => {
    const client = await ConnectClient.dial(lab, "outside", GUARDED);
    assert.equal(await client.status(`${GUARDED}:8080`), 401);
    await errorComes(
      "connection closed due to policy rejection: allow policies exist, but none allowed",
    );
    client.close();
  });

  /** @returns the answer to a caller of another trust domain than the server's own. */
  async function askFrom(trustDomain: string): Promise<number> {
    const uri = `spiffe://${trustDomain}/ns/default/sa/outside`;
    const name = { kind: "uri", uri } as const;
    const client = await ConnectClient.dial(lab, "outside", SERVER, undefined, name);
    try {
      return await client.status(`${SERVER}:8080`);
    } finally {
      client.close();
    }
  }

  test("a peer of a trust domain in TRUST_DOMAINS is let in", async () => {
    assert.equal(await askFrom(ALIAS), 200);
  });

  test("trust_domain_mismatch_rejected", async () => {
    // Its own handshake is over when we look at it.
    await assert.rejects(askFrom("other.example"));
    await waitUntil(
      () => /expected trustdomain|SanTrustDomainError/.test(String(errors().at(-1))),
      "no line names the trust domain",
    );
  });

  /** From a captured pod: what its own rules, the proxy before it and the far end make of it. */
  const CALLS: Readonly<Record<string, readonly [string, Readonly<Record<number, Outcome>>]>> = {
    // Captured, and passed through to where only the operators' ports listen on every address.
    ztunnel: [
      NODE,
      {
        15001: "cut",
        15006: "cut",
        15008: "cut",
        15080: "cut",
        15000: "cut",
        15020: "HTTP 400",
        15021: "HTTP 400",
      },
    ],
    // Its own address is never captured.
    self: [
      CLIENT,
      {
        15001: "cut",
        15006: "cut",
        15008: "cut",
        15080: "refused",
        15000: "refused",
        15020: "refused",
        15021: "refused",
      },
    ],
    localhost: [
      "127.0.0.1",
      {
        15001: "cut",
        15006: "cut",
        15008: "cut",
        15080: "refused",
        15000: "refused",
        15020: "refused",
        15021: "refused",
      },
    ],
  };

  for (const [where, [ip, ports]] of Object.entries(CALLS)) {
    test(`malicious_calls_inpod: ${where}`, async () => {
      const seen = await Promise.all(
        Object.keys(ports).map(async (port) => [port, await attempt(lab, ip, Number(port))]),
      );
      assert.deepEqual(Object.fromEntries(seen), ports);
    });
  }
});

/** Connects and sends what is no request of any protocol spoken there. */
async function attempt(lab: MeshLab, ip: string, port: number): Promise<Outcome> {
  let socket: Socket;
  try {
    socket = await connectFrom(lab.host("client"), ip, port);
  } catch {
    return "refused";
  }
  return new Promise((resolve) => {
    let answer = "";
    socket.on("data", (chunk: Buffer) => {
      answer += chunk.toString("latin1");
    });
    socket.on("close", () => {
      const status = /^HTTP\/1\.1 (400|404)/.exec(answer)?.[1];
      resolve(status === undefined ? "cut" : (`HTTP ${status}` as Outcome));
    });
    socket.write("this is no request\r\n\r\n");
    socket.on("end", () => socket.destroy());
  });
}

function startLab(): Promise<MeshLab> {
  const environment = { LOG_FORMAT: "json", ZTUNNEL_WORKER_THREADS: "1" };
  return MeshLab.start({
    nodes: {
      "node-a": { ip: NODE, environment, pods: [{ name: "client", ip: CLIENT }] },
      "node-b": {
        ip: "10.82.0.3",
        environment: { ...environment, TRUST_DOMAINS: ALIAS },
        pods: [
          { name: "server", ip: SERVER },
          { name: "guarded", ip: GUARDED },
        ],
      },
    },
    outsiders: { outside: OUTSIDE },
    mesh: `workloads:
${workload("client", CLIENT, "node-a", behind())}
${workload("server", SERVER, "node-b", behind("server", "named"))}
${workload("guarded", GUARDED, "node-b", `${behind()}, authorizationPolicies: [default/friends]`)}
services:
${service("server", VIP)}
- {name: named, namespace: default, hostname: named.default.${DOMAIN}, vips: [], ports: {80: 0}}
policies:
- {name: friends, namespace: default, scope: WorkloadSelector, action: Allow, dryRun: false, rules: [[[{principals: [!Exact cluster.local/ns/default/sa/friend]}]]]}
`,
    controlIp: "10.82.0.4",
    prefixLength: 24,
    gatewayIp: "10.82.0.1",
  });
}
