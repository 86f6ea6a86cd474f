/** What operators see of a daemon with data threads and live connections. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import type { Socket } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { gunzipSync } from "node:zlib";
import type { SocketReport } from "../../src/admin/socket-report.ts";
import { decodeMessage } from "../../src/wire/message-codec.ts";
import { Profile } from "../../src/wire/proto/perftools-profiles.ts";
import { datagramsOf } from "../support/dns-lab.ts";
import { istioctlTables } from "../support/istioctl-tables.ts";
import { connectFrom, type LabServer, listenEcho, listenOn } from "../support/lab-application.ts";
import { enrolment, type MeshLab } from "../support/mesh-lab.ts";
import { sampleSum } from "../support/metrics-text.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { ADDRESS, APP_PORT, ECHO_VIP, pingPong, startTwoNodes } from "../support/two-nodes.ts";
import { waitUntil } from "../support/wait-until.ts";

/** What the lab writes into the files of AUTH_TOKEN, without the node. */
const TOKEN = "token of ";
/** Where Node's inspector listens. */
const DEBUGGER_PORT = 9229;
const DATAGRAM_PORT = 4433;

type PodSockets = SocketReport["pods"][number];

describe("operators of a daemon", { skip: requireNetns("iptables") }, () => {
  let lab: MeshLab;
  let server: LabServer;

  before(async () => {
    lab = await startTwoNodes({
      environment: { ZTUNNEL_WORKER_THREADS: "2", POD_SOCKETS_INTERVAL: "100ms" },
    });
    server = listenEcho(lab.host("server"), APP_PORT);
  });
  after(async () => {
    server?.close();
    await lab?.close();
  });

  test("see live connections of all data threads as istioctl lists them", async () => {
    const sockets = await Promise.all([
      ...Array.from({ length: 6 }, () => connectFrom(lab.host("client"), ADDRESS.server, APP_PORT)),
      connectFrom(lab.host("client"), ECHO_VIP, 80),
      connectFrom(lab.host("outside"), ADDRESS.server, APP_PORT),
    ]);
    for (const socket of sockets) await pingPong(socket);
    const portless = (row: string): string => row.replaceAll(/(?<=default|33):\d+/g, ":*");

    const source = istioctlTables(await lab.node("node-a").get(15000, "/config_dump"));
    assert.deepEqual(source.connections.map(portless).sort(), [
      "client.default Outbound client.default:* server.default:* echo.default.svc.cluster.local:80 HBONE",
      ...Array(6).fill(
        "client.default Outbound client.default:* server.default:* server.default:* HBONE",
      ),
    ]);
    const target = istioctlTables(await lab.node("node-b").get(15000, "/config_dump"));
    assert.deepEqual(target.connections.map(portless).sort(), [
      "server.default Inbound server.default:* 10.66.0.33:*  TCP",
      ...Array(6).fill("server.default Inbound server.default:* client.default:*  HBONE"),
      "server.default Inbound server.default:* client.default:* echo.default.svc.cluster.local HBONE",
    ]);

    for (const socket of sockets) socket.destroy();
    await waitUntil(async () => {
      const text = await lab.node("node-b").get(15000, "/config_dump");
      return istioctlTables(text).connections.length === 0;
    }, "closed connections are still listed");
  });

  test("find certificates in the dump, and no secret", async () => {
    const text = await lab.node("node-b").get(15000, "/config_dump");
    const { certificates, policies, services, workloads } = istioctlTables(text);
    const identity = "spiffe://cluster.local/ns/default/sa/server";
    assert.deepEqual(
      certificates
        .filter((row) => row.startsWith(`${identity} `))
        .map((row) => row.split(" ").slice(1, 3).join(" ")),
      ["Leaf Available", "Root Available"],
    );
    assert.deepEqual(policies, ["default friends Allow WorkloadSelector"]);
    assert.deepEqual(services, ["default echo 10.66.1.1 None 1/1"]);
    assert.ok(
      workloads.includes("default server 10.66.0.21,fd66::21 node-b None HBONE"),
      String(workloads),
    );
    assert.match(readFileSync(join(lab.folder, "node-b.token"), "utf8"), new RegExp(TOKEN));
    assert.ok(!text.includes(TOKEN));
    const { certificates: dumped } = JSON.parse(text) as {
      certificates: { certChain: { pem: string }[]; rootCerts: { pem: string }[] }[];
    };
    const pems = dumped
      .flatMap(({ certChain, rootCerts }) => [...certChain, ...rootCerts])
      .map(({ pem }) => Buffer.from(pem, "base64").toString());
    assert.ok(pems.every((pem) => /^-----BEGIN CERTIFICATE-----/.test(pem)));
    assert.ok(!`${text}${pems.join("")}`.includes("PRIVATE KEY"));
    const hidden = Buffer.from("PRIVATE KEY").toString("base64").slice(1, -2);
    assert.ok(!text.includes(hidden));
  });

  test("open no debugger, which could read private keys, by a signal", async () => {
    const node = lab.node("node-b");
    node.process.kill("SIGUSR1");
    const until = performance.now() + 500;
    while (performance.now() < until) {
      assert.match(await node.get(15000, "/config_dump"), /"certificates"/);
      await assert.rejects(node.get(DEBUGGER_PORT, "/json"), { code: "ECONNREFUSED" });
    }
    assert.equal(node.process.exitCode, null);
  });

  test("profile the CPU of every thread while it works", async () => {
    // Only a thread that works is sampled: messages keep the data threads busy (the kernel spreads
    // 16 connections over both), dumps the control thread.
    const sockets = await Promise.all(
      Array.from({ length: 16 }, () => connectFrom(lab.host("client"), ADDRESS.server, APP_PORT)),
    );
    let over = false;
    const profiled = profileOf(lab, "/debug/pprof/profile?seconds=2&frequency=1000").finally(() => {
      over = true;
    });
    while (!over) {
      await lab.node("node-a").get(15000, "/config_dump");
      for (const socket of sockets) for (let i = 0; i < 4; i++) await pingPong(socket);
    }
    for (const socket of sockets) socket.destroy();
    const profile = await profiled;
    assert.deepEqual(threadsOf(profile), ["control", "data-0", "data-1"]);
    const files = profile.function.map(({ filename }) => profile.stringTable[filename] ?? "");
    assert.ok(
      files.some((file) => file.endsWith("/dist/dataplane/data-worker.js") || /chunks/.test(file)),
      String(files),
    );
  });

  test("profile the heap of one thread", async () => {
    const node = lab.node("node-a");
    assert.equal(
      await node.get(15000, "/debug/pprof/heap/profiling?activate=true"),
      "heap profiling active: true\n",
    );
    // Connections that stay are what both data threads keep; one of so many bytes is sampled.
    const sockets: Socket[] = [];
    let profile: Profile | undefined;
    await waitUntil(async () => {
      for (let i = 0; i < 16; i++) {
        sockets.push(await connectFrom(lab.host("client"), ADDRESS.server, APP_PORT));
      }
      profile = await profileOf(lab, "/debug/pprof/heap?thread=data-1");
      return profile.sample.length > 0;
    }, "nothing that is kept was sampled");
    for (const socket of sockets) socket.destroy();
    await node.get(15000, "/debug/pprof/heap/profiling?activate=false");
    assert.ok(profile !== undefined);
    const [measure] = profile.sampleType;
    assert.equal(profile.stringTable[measure?.type ?? 0], "inuse_space");
    assert.deepEqual(threadsOf(profile), ["data-1"]);
    assert.ok(profile.sample.every(({ value }) => Number(value[0]) > 0));
  });

  test("test_prefetch_forget_certs: see the certificates of the node's own pods, until the last of an account goes", async () => {
    const { agent } = lab.node("node-a");
    const accounts = async (): Promise<string> => {
      const text = await lab.node("node-a").get(15000, "/config_dump");
      const { certificates } = istioctlTables(text);
      const leaves = certificates.filter((row) => row.includes(" Leaf Available"));
      return leaves.map((row) => row.split(" ")[0]?.split("/").at(-1)).join(" ");
    };
    // Nobody calls to or from `friend`: its certificate is there because it may be needed.
    await waitUntil(async () => (await accounts()) === "client friend", "never both");
    await agent.del("node-a-1");
    await waitUntil(async () => (await accounts()) === "client", "still there");
    const netnsFd = lab.node("node-a").openNetns(lab.host("friend"));
    await agent.add(enrolment({ name: "friend", ip: ADDRESS.friend }, "node-a", 1), netnsFd);
    await assert.rejects(connectFrom(lab.host("friend"), ADDRESS.guarded, APP_PORT).then(pingPong));
    await waitUntil(async () => (await accounts()) === "client friend", "never back");
  });

  test("see sockets that are leaked in a pod, and datagrams that pass by, until the pod goes", async (t) => {
    const node = lab.node("node-a");
    const [friend, outside] = [lab.host("friend"), lab.host("outside")];
    await waitUntil(async () => (await socketsOf(lab, "friend")) !== undefined, "never looked at");

    // Whoever is called hangs up, the caller does not: both its socket and that of the proxy stay.
    const curt = listenOn(outside, APP_PORT, (socket) => socket.end());
    t.after(() => curt.close());
    const leaked = await Promise.all(
      Array.from({ length: 5 }, () => connectFrom(friend, ADDRESS.outside, APP_PORT)),
    );
    t.after(() => leaked.forEach((socket) => void socket.destroy()));
    await waitUntil(async () => {
      const tcp = (await socketsOf(lab, "friend"))?.tcp;
      return tcp?.["application"]?.["close_wait"] === 5 && tcp["proxy"]?.["fin_wait2"] === 5;
    }, "the leak is not seen");

    const echo = datagramsOf(outside, { ip: ADDRESS.outside, port: DATAGRAM_PORT });
    t.after(() => echo.close());
    echo.on("message", (message, { address, port }) => echo.send(message, port, address));
    const sender = datagramsOf(friend);
    t.after(() => sender.close());
    sender.connect(DATAGRAM_PORT, ADDRESS.outside);
    await once(sender, "connect");
    for (let sent = 0; sent < 20; sent++) {
      sender.send("hello");
      await once(sender, "message");
    }
    const datagrams = { received: 20, sent: 20 };
    await waitUntil(async () => {
      const udp = (await socketsOf(lab, "friend"))?.udp;
      return isDeepStrictEqual(udp?.bypassing, datagrams) && udp?.connected === 1;
    }, "the datagrams are not seen");
    const { tcp, udp, workload } = (await socketsOf(lab, "friend")) ?? assert.fail("not there");
    assert.equal(workload, "friend");
    assert.deepEqual(udp.peers, { [`${ADDRESS.outside}:${DATAGRAM_PORT}`]: 1 });
    assert.deepEqual(Object.keys(tcp).sort(), ["application", "proxy"]);
    // Three ports on two threads, and DNS.
    assert.ok((tcp["proxy"]?.["listen"] ?? 0) > 6, JSON.stringify(tcp));
    assert.equal(tcp["application"]?.["listen"], undefined);

    const metrics = await node.metrics();
    const labels = { pod: "friend", workload: "friend", workload_namespace: "default" };
    for (const owner of ["application", "proxy"]) {
      const closeWait = { ...labels, owner, state: "close_wait" };
      assert.equal(sampleSum(metrics, "ztunnel_pod_tcp_sockets", closeWait), 5, owner);
    }
    for (const direction of ["received", "sent"]) {
      const family = "ztunnel_pod_udp_bypass_datagrams_total";
      assert.equal(sampleSum(metrics, family, { ...labels, direction }), 20, direction);
    }
    assert.match(metrics, /^ztunnel_pod_tcp_sockets\{.*pod="client"/m);

    await node.agent.del("node-a-1");
    await waitUntil(
      async () => !(await node.metrics()).includes('pod="friend"'),
      "the series of a pod outlive it",
    );
    assert.equal(await socketsOf(lab, "friend"), undefined);
    assert.match(await node.metrics(), /^ztunnel_pod_tcp_sockets\{.*pod="client"/m);
    const netnsFd = node.openNetns(friend);
    await node.agent.add(enrolment({ name: "friend", ip: ADDRESS.friend }, "node-a", 1), netnsFd);
  });

  test("hear nothing of a pod whose namespace is gone before its agent says so", async () => {
    const node = lab.node("node-a");
    const pod = { name: "gone", ip: "10.66.0.77" };
    const netnsFd = node.openNetns(lab.addHost(pod.name, pod.ip));
    await node.agent.add(enrolment(pod, "node-a", 7), netnsFd);
    const lookedAt = async (): Promise<string | undefined> =>
      (await socketsOf(lab, "gone"))?.lookedAt;
    await waitUntil(async () => (await lookedAt()) !== undefined, "never looked at");
    lab.removeHost("gone");
    const before = await lookedAt();
    await waitUntil(async () => (await lookedAt()) !== before, "never looked at again");
    await node.agent.del("node-a-7");
    await waitUntil(async () => (await lookedAt()) === undefined, "still there");
    assert.deepEqual(
      node.lines.filter((line) => line.includes("sockets")),
      [],
    );
  });

  test("are told why the daemon is not ready", async () => {
    const node = lab.node("node-b");
    assert.match(
      await node.get(15021, "/healthz/ready?verbose"),
      /^ready\ncontrol plane https:\/\/10.66.0.4:15012: connected\nnode agent \S+node-b.sock: connected\npods: 2 up, 0 pending\nmesh: \d+ workloads, 1 service, 1 policy, last answer [\d.]+s ago\n$/,
    );
    node.agent.close();
    await waitUntil(async () => {
      const answer = await node.get(15021, "/healthz/ready?verbose").catch(String);
      return /500 not ready, pending: workload proxy manager\nworkload proxy manager: pending for [\d.]+s: \S+node-b.sock: not connected: .*No such file or directory/.test(
        answer,
      );
    }, "it says nothing of the agent");
  });
});

/** @returns `undefined` before the first look at the pod, and when it has left. */
async function socketsOf(lab: MeshLab, pod: string): Promise<PodSockets | undefined> {
  const report = await lab.node("node-a").get(15000, "/debug/sockets");
  const { pods } = JSON.parse(report) as SocketReport;
  return pods.find(({ name }) => name === pod);
}

async function profileOf(lab: MeshLab, path: string): Promise<Profile> {
  const bytes = await lab.node("node-a").bytes(15000, path);
  return decodeMessage("profile", Profile, gunzipSync(bytes));
}

function threadsOf(profile: Profile): readonly string[] {
  const names = profile.sample.map(({ label }) => profile.stringTable[label[0]?.str ?? 0] ?? "");
  return [...new Set(names)].sort();
}
