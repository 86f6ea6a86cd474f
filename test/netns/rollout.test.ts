/**
 * The pods of a service are replaced one by one while connections come in all the time. Each old one
 * goes in the worst order: its application refuses, then its proxy is gone, and only then does the
 * mesh learn of it.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { installRedirect } from "../../src/embedded/redirect-rules.ts";
import { ConnectionLoad } from "../support/connection-load.ts";
import { type LabServer, listenEcho } from "../support/lab-application.ts";
import { DOMAIN, workload } from "../support/mesh-entries.ts";
import { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { APP_PORT } from "../support/two-nodes.ts";
import { waitUntil } from "../support/wait-until.ts";

const CLIENT_IP = "10.58.0.11";
const VIP = "10.58.1.1";
const PODS: Readonly<Record<string, string>> = {
  "old-1": "10.58.0.21",
  "old-2": "10.58.0.22",
  "new-1": "10.58.0.31",
  "new-2": "10.58.0.32",
};
const PER_SECOND = 100;

describe("a rollout", { skip: requireNetns("iptables", "ss"), timeout: 90_000 }, () => {
  let lab: MeshLab;
  const servers = new Map<string, LabServer>();

  before(async () => {
    lab = await MeshLab.start({
      nodes: {
        "node-a": node("10.58.0.2", [{ name: "client", ip: CLIENT_IP }]),
        "node-b": node("10.58.0.3", []),
      },
      mesh: meshOf(["old-1", "old-2"]),
      controlIp: "10.58.0.4",
      prefixLength: 24,
      gatewayIp: "10.58.0.1",
    });
    await Promise.all(["old-1", "old-2"].map(startPod));
  });
  after(async () => {
    for (const server of servers.values()) server.close();
    await lab?.close();
  });

  async function startPod(name: string): Promise<void> {
    const host = lab.addHost(name, PODS[name] as string);
    servers.set(name, listenEcho(host, APP_PORT));
    const { agent } = lab.node("node-b");
    const netnsFd = lab.node("node-b").openNetns(host);
    await installRedirect(netnsFd, { dnsCapture: false, inboundCapture: true });
    await agent.add({ uid: name, name, namespace: "default", serviceAccount: name }, netnsFd);
  }

  /** New connections are refused, those that are open go on to their end. */
  async function stopApplication(name: string): Promise<void> {
    const host = lab.host(name);
    const to = ["-p", "tcp", "--dport", String(APP_PORT)];
    const refusal = ["--syn", "-j", "REJECT", "--reject-with", "tcp-reset"];
    lab.net.exec(host, "iptables", "-I", "INPUT", ...to, ...refusal);
    await waitUntil(() => {
      const filter = ["state", "established", "sport", "=", `:${APP_PORT}`];
      return lab.net.exec(host, "ss", "-Htn", ...filter) === "";
    }, `${name} still has connections`);
  }

  async function changeMesh(names: readonly string[]): Promise<void> {
    lab.changeMesh(meshOf(names));
    await waitUntil(async () => {
      const { workloads } = JSON.parse(await lab.node("node-a").get(15000, "/config_dump"));
      const known = workloads.map((one: { name: string }) => one.name).sort();
      return known.join() === [...names, "client"].sort().join();
    }, `the mesh never had ${names}`);
  }

  /** Settles when connections that were meant for a pod that is going went to another. */
  async function waitForRetries(): Promise<void> {
    const count = async (): Promise<number> =>
      Number(
        /^ztunnel_connect_retries_total (\d+)/m.exec(await lab.node("node-a").metrics())?.[1] ?? 0,
      );
    const before = await count();
    await waitUntil(async () => (await count()) > before, "nobody was sent there");
  }

  test(`loses none of ${PER_SECOND} new connections per second`, async (t) => {
    const load = new ConnectionLoad(lab, { from: "client", ip: VIP }, PER_SECOND);
    t.after(() => load.stop());
    const live = ["old-1", "old-2"];
    for (const [old, successor] of [
      ["old-1", "new-1"],
      ["old-2", "new-2"],
    ] as const) {
      await startPod(successor);
      live.push(successor);
      await changeMesh(live);
      const { peers } = servers.get(successor) as LabServer;
      await waitUntil(() => peers.length > 0, `${successor} gets no connections`);

      await stopApplication(old);
      await waitForRetries();
      await lab.node("node-b").agent.del(old);
      await waitForRetries();
      live.splice(live.indexOf(old), 1);
      await changeMesh(live);
    }
    const { count, failures } = await load.stop();
    t.diagnostic(`${count} connections`);
    assert.deepEqual(failures, []);
    const failed = lab.node("node-a").lines.filter((line) => line.includes('"error":'));
    assert.deepEqual(failed, []);
  });
});

function node(ip: string, pods: readonly { readonly name: string; readonly ip: string }[]) {
  return { ip, pods, environment: { LOG_FORMAT: "json", ZTUNNEL_WORKER_THREADS: "1" } };
}

/** @param names of the service's endpoints. */
function meshOf(names: readonly string[]): string {
  const service = `default/web.default.${DOMAIN}`;
  const endpoint = `protocol: HBONE, services: {${service}: {${APP_PORT}: ${APP_PORT}}}`;
  return `workloads:
${workload("client", CLIENT_IP, "node-a", "protocol: HBONE, services: {}")}
${names.map((name) => workload(name, PODS[name] as string, "node-b", endpoint)).join("\n")}
services:
- {name: web, namespace: default, hostname: web.default.${DOMAIN}, vips: ["/${VIP}"], ports: {${APP_PORT}: ${APP_PORT}}}
`;
}
