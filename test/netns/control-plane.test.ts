/** Proxies of two nodes and their control plane: pushed to, cut off, killed, back again. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { type LabServer, listenEcho } from "../support/lab-application.ts";
import type { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import {
  ADDRESS,
  APP_PORT,
  ECHO_VIP,
  echoOnce,
  startTwoNodes,
  TWO_NODES_MESH,
} from "../support/two-nodes.ts";
import { waitUntil } from "../support/wait-until.ts";

/** Keep-alive: 30 s until the ping, 10 s until it counts as lost; and what a busy machine needs. */
const HALF_OPEN_MS_MAX = 40_000 + 30_000;
/** The longest back-off, and what a busy machine needs. */
const BACK_MS_MAX = 15_000 + 30_000;
const PUSH_MS_MAX = 30_000;
const CONNECT_MS = 1000;
/** A tunnel goes so long after its last connection. */
const RELEASE_MS = 50;
const FIRST_ANSWER_MS = 3000;

const SKEWED_CLOCK = join(import.meta.dirname, "../support/skewed-clock.mjs");

const CROWD_SIZE = 500;
const CROWD = Array.from(
  { length: CROWD_SIZE },
  (_, i) => `  - uid: two-nodes//Pod/default/crowd-${i}
    name: crowd-${i}
    namespace: default
    serviceAccount: crowd
    trustDomain: cluster.local
    workloadIps: ["10.67.${i >> 8}.${i & 255}"]
    protocol: HBONE
    node: node-c
    services: {}
`,
).join("");

/** `guarded` names a policy that is nowhere. */
const UNKNOWN_POLICY_MESH = TWO_NODES_MESH.replace("[default/friends]", "[default/nowhere]");
const OPEN_MESH = TWO_NODES_MESH.replace("authorizationPolicies: [default/friends]", "");

// Side by side, because the first mostly waits.
describe("the mesh of a control plane", {
  skip: requireNetns("iptables"),
  concurrency: true,
}, () => {
  describe("a mesh that is learnt from a control plane", { concurrency: false }, () => {
    let lab: MeshLab;
    const servers: LabServer[] = [];

    before(async () => {
      lab = await startTwoNodes({
        environment: {
          XDS_CONNECT_TIMEOUT: `${CONNECT_MS}ms`,
          XDS_FIRST_ANSWER_TIMEOUT: `${FIRST_ANSWER_MS}ms`,
          UNKNOWN_POLICY_TIMEOUT: "200ms",
        },
      });
      for (const name of ["server", "guarded"]) servers.push(listenEcho(lab.host(name), APP_PORT));
    });

    after(async () => {
      for (const server of servers) server.close();
      await lab?.close();
    });

    const isConnected = async (node: string): Promise<boolean> =>
      /^ztunnel_xds_connected 1$/m.test(await lab.node(node).metrics());
    const mayCall = (ip: string): Promise<boolean> =>
      echoOnce(lab, "client", ip).then(
        () => true,
        () => false,
      );
    const change = (mesh: string): void => lab.changeMesh(mesh);
    const saysControlPlane = (text: string): Promise<void> =>
      waitUntil(
        () => lab.controlLines.some((line) => line.includes(text)),
        `the control plane never said ${text}`,
        PUSH_MS_MAX,
      );

    test("a change of the file reaches the proxies, one with mistakes does not", async () => {
      assert.deepEqual(
        [await mayCall(ADDRESS.server), await mayCall(ADDRESS.guarded)],
        [true, false],
      );
      change(OPEN_MESH);
      await waitUntil(() => mayCall(ADDRESS.guarded), "the change never came", PUSH_MS_MAX);
      change(`${OPEN_MESH}gateways: []\n`);
      await saysControlPlane("keeping the former mesh: ");
      assert.equal(await mayCall(ADDRESS.guarded), true);
      change(TWO_NODES_MESH);
      await waitUntil(async () => !(await mayCall(ADDRESS.guarded)), "still open", PUSH_MS_MAX);
      for (const node of ["node-a", "node-b"]) {
        const lines = lab.controlLines.filter((line) => line.startsWith(`proxy of ${node}: `));
        assert.equal(lines[0], `proxy of ${node}: connected`);
        assert(lines.includes(`proxy of ${node}: sent 1 addresses, removed 0`), lines.join("\n"));
      }
    });

    test("a policy that is named and does not come denies, with a line and a count, until it does", async () => {
      const node = lab.node("node-b");
      const { length } = node.lines;
      const isFriend = (): Promise<boolean> =>
        echoOnce(lab, "friend", ADDRESS.guarded).then(
          () => true,
          () => false,
        );
      change(UNKNOWN_POLICY_MESH);
      await waitUntil(async () => !(await isFriend()), "still allowed", PUSH_MS_MAX);
      assert.equal(await mayCall(ADDRESS.server), true);
      await waitUntil(
        () =>
          [
            "denying because of unknown policy default/nowhere",
            "connection closed due to policy rejection: unknown policy: default/nowhere",
          ].every((text) => node.lines.slice(length).some((line) => line.includes(text))),
        "node-b never said why",
        PUSH_MS_MAX,
      );
      assert.match(
        await node.metrics(),
        /^ztunnel_unknown_policy_connections_total\{decision="deny"\} [1-9]/m,
      );
      change(UNKNOWN_POLICY_MESH.replace("name: friends", "name: nowhere"));
      await waitUntil(isFriend, "the policy never came", PUSH_MS_MAX);
      assert.equal(await mayCall(ADDRESS.guarded), false);
      change(TWO_NODES_MESH);
      await waitUntil(isFriend, "the former policy never came", PUSH_MS_MAX);
    });

    test("a control plane that is told to end takes its leave", async () => {
      await waitUntil(() => isConnected("node-a"), "never connected", BACK_MS_MAX);
      const { length } = lab.node("node-a").lines;
      const ended = once(lab.controlPlane, "exit");
      lab.controlPlane.kill("SIGTERM");
      assert.deepEqual(await ended, [0, null]);
      await waitUntil(async () => !(await isConnected("node-a")), "not noticed", PUSH_MS_MAX);
      assert.match(
        await lab.node("node-a").metrics(),
        /^istio_xds_connection_terminations_total\{reason="Reconnect"\} [1-9]/m,
      );
      await lab.startControlPlane();
      await waitUntil(() => isConnected("node-a"), "not found", BACK_MS_MAX);
      const lines = lab.node("node-a").lines.slice(length);
      assert.deepEqual(
        lines.filter((line) => /XDS client (error|complete|terminated)|Internal/.test(line)),
        [],
      );
    });

    test("a control plane that is killed is missed by nobody, and found when it is back", async () => {
      const { pid } = lab.controlPlane;
      assert(pid !== undefined);
      const ended = once(lab.controlPlane, "exit");
      process.kill(pid, "SIGKILL");
      await ended;
      await waitUntil(async () => !(await isConnected("node-a")), "not noticed", PUSH_MS_MAX);
      assert.deepEqual(
        [await mayCall(ADDRESS.server), await mayCall(ADDRESS.guarded)],
        [true, false],
      );
      change(OPEN_MESH);
      await lab.startControlPlane();
      await waitUntil(() => mayCall(ADDRESS.guarded), "the change never came", BACK_MS_MAX);
      change(TWO_NODES_MESH);
      await waitUntil(async () => !(await mayCall(ADDRESS.guarded)), "still open", PUSH_MS_MAX);
    });

    test("one that drips is given up, while traffic goes on", { timeout: 170_000 }, async () => {
      const { host } = lab.node("node-b");
      /** @param limit of what node-b takes from the control plane a second, and at once. */
      const drip = (action: "-I" | "-D", limit: string): void => {
        const above = ["--hashlimit-above", `${limit}/s`, "--hashlimit-burst", limit];
        const match = ["-m", "hashlimit", "--hashlimit-name", `drip${limit}`, ...above];
        const rule = ["INPUT", "-p", "tcp", "--sport", "15012", ...match, "-j", "DROP"];
        lab.net.exec(host, "iptables", action, ...rule);
      };
      const workloads = async (node: string): Promise<number> =>
        JSON.parse(await lab.node(node).get(15000, "/config_dump")).workloads.length;
      const saysNodeB = async (text: string): Promise<void> => {
        const { length } = lab.node("node-b").lines;
        await waitUntil(
          () =>
            lab
              .node("node-b")
              .lines.slice(length)
              .some((line) => line.includes(text)),
          `node-b never said ${text}`,
          BACK_MS_MAX,
        );
      };
      const ended = once(lab.controlPlane, "exit");
      lab.controlPlane.kill("SIGTERM");
      await ended;
      // A first answer of some 100 kB.
      change(TWO_NODES_MESH.replace("services:\n  - name: echo", `${CROWD}$&`));
      drip("-I", "8kb");
      await lab.startControlPlane();
      await waitUntil(
        async () => (await workloads("node-a")) > CROWD_SIZE,
        "node-a never learnt",
        BACK_MS_MAX,
      );
      await saysNodeB(`no answer within ${FIRST_ANSWER_MS / 1000}s`);
      drip("-D", "8kb");
      drip("-I", "1kb");
      await saysNodeB(`not connected within ${CONNECT_MS} ms`);
      assert.equal(await workloads("node-b"), 4);
      assert.deepEqual(
        [await mayCall(ADDRESS.server), await mayCall(ADDRESS.guarded)],
        [true, false],
      );
      drip("-D", "1kb");
      await waitUntil(
        async () => (await workloads("node-b")) > CROWD_SIZE,
        "node-b never learnt",
        BACK_MS_MAX,
      );
      change(TWO_NODES_MESH);
      await waitUntil(async () => (await workloads("node-b")) === 4, "never back", PUSH_MS_MAX);
    });

    test("one that all packets to and from are lost of is noticed, while traffic goes on", {
      timeout: 170_000,
    }, async (t) => {
      const blackhole = (action: "-I" | "-D"): void => {
        for (const [chain, port] of [
          ["INPUT", "--sport"],
          ["OUTPUT", "--dport"],
        ] as const) {
          const rule = [chain, "-p", "tcp", port, "15012", "-j", "DROP"];
          lab.net.exec(lab.node("node-b").host, "iptables", action, ...rule);
        }
      };
      await waitUntil(() => isConnected("node-b"), "never connected", BACK_MS_MAX);
      const { length } = lab.node("node-b").lines;
      blackhole("-I");
      const startedAt = performance.now();
      // Said into the void, for node-b.
      change(OPEN_MESH);
      await waitUntil(
        async () => {
          assert.deepEqual(
            [await mayCall(ADDRESS.server), await mayCall(ADDRESS.guarded)],
            [true, false],
          );
          await new Promise((resolve) => setTimeout(resolve, 500));
          return !(await isConnected("node-b"));
        },
        "a half open connection was never noticed",
        HALF_OPEN_MS_MAX,
      );
      t.diagnostic(`half open noticed after ${Math.round(performance.now() - startedAt)} ms`);
      const notConnected = `not connected within ${CONNECT_MS} ms`;
      await waitUntil(
        () =>
          lab
            .node("node-b")
            .lines.slice(length)
            .some((line) => line.includes(notConnected)),
        "lost SYNs were never noticed",
        BACK_MS_MAX,
      );
      assert.equal(await mayCall(ADDRESS.server), true);
      blackhole("-D");
      await waitUntil(() => mayCall(ADDRESS.guarded), "the change never came", BACK_MS_MAX);
    });
  });

  describe("a mesh that is kept in a folder", { concurrency: false }, () => {
    const folder = mkdtempSync(join(tmpdir(), "ztunnel-kept-"));
    let lab: MeshLab;
    const servers: LabServer[] = [];

    before(async () => {
      lab = await startTwoNodes({
        // Renewed each four seconds, and shown to peers with each new connection.
        environment: { SECRET_TTL: "8s", POOL_UNUSED_RELEASE_TIMEOUT: `${RELEASE_MS}ms` },
        environmentOf: {
          "node-b": {
            ...{ STATE_DIR: folder, STATE_SAVE_INTERVAL: "50ms" },
            ...{ UNKNOWN_POLICY: "allow", UNKNOWN_POLICY_TIMEOUT: "200ms" },
          },
        },
      });
      for (const name of ["server", "guarded"]) servers.push(listenEcho(lab.host(name), APP_PORT));
    });

    after(async () => {
      for (const server of servers) server.close();
      await lab?.close();
      rmSync(folder, { recursive: true, force: true });
    });

    const workloads = async (): Promise<number> =>
      JSON.parse(await lab.node("node-b").get(15000, "/config_dump")).workloads.length;
    const mayCall = (from: string, ip: string): Promise<boolean> =>
      echoOnce(lab, from, ip).then(
        () => true,
        () => false,
      );
    const killControlPlane = async (): Promise<void> => {
      const ended = once(lab.controlPlane, "exit");
      lab.controlPlane.kill("SIGKILL");
      await ended;
    };

    test("is served after a restart while the control plane is away, and true again when it is back", async () => {
      const known = await workloads();
      assert(known > 0);
      await killControlPlane();
      await lab.node("node-b").restart();
      assert.equal(await workloads(), known);
      // Without certificates there is plain text, and what policies say of it.
      await echoOnce(lab, "outside", ADDRESS.server);
      await assert.rejects(echoOnce(lab, "outside", ADDRESS.guarded));
      assert.match(await lab.node("node-b").metrics(), /^ztunnel_xds_connected 0$/m);
      await lab.startControlPlane();
      await waitUntil(
        () => mayCall("client", ADDRESS.server),
        "no certificate after the control plane was back",
        BACK_MS_MAX,
      );
      assert.equal(await workloads(), known);
    });

    test("is left alone where its file was cut off: not ready and why, until the control plane is back", async () => {
      const node = lab.node("node-b");
      const file = join(folder, "mesh.state");
      await killControlPlane();
      writeFileSync(file, readFileSync(file).subarray(0, -1));
      const { length } = node.lines;
      const restarted = node.restart();
      const readiness = (): Promise<string> =>
        node.get(15021, "/healthz/ready?verbose").catch((error: Error) => error.message);
      await waitUntil(
        async () =>
          /not ready.*\nstate manager: pending for \S+: \S+: not connected for \S+: .*ECONNREFUSED/.test(
            await readiness(),
          ),
        "never said why it is not ready",
        PUSH_MS_MAX,
      );
      const said = `starting without the mesh that was kept: ${file} is damaged: its checksum differs`;
      await waitUntil(
        () => node.lines.slice(length).some((line) => line.includes(said)),
        `node-b never said ${said}`,
        PUSH_MS_MAX,
      );
      await lab.startControlPlane();
      await restarted;
      await waitUntil(() => mayCall("client", ADDRESS.server), "no traffic", BACK_MS_MAX);
    });

    test("lets go by where the operator wants what the original does, with a line and a count", async () => {
      lab.changeMesh(UNKNOWN_POLICY_MESH);
      await waitUntil(() => mayCall("client", ADDRESS.guarded), "still denied", PUSH_MS_MAX);
      const node = lab.node("node-b");
      const said = "skipping unknown policy default/nowhere";
      await waitUntil(
        () => node.lines.some((line) => line.includes(said)),
        `node-b never said ${said}`,
        PUSH_MS_MAX,
      );
      assert.match(
        await node.metrics(),
        /^ztunnel_unknown_policy_connections_total\{decision="allow"\} [1-9]/m,
      );
      lab.changeMesh(TWO_NODES_MESH);
      await waitUntil(
        async () => !(await mayCall("client", ADDRESS.guarded)),
        "still open",
        PUSH_MS_MAX,
      );
    });

    test("outlives its certificates: connections say who did not renew them, until somebody does", async () => {
      const node = lab.node("node-a");
      await killControlPlane();
      // Those in use carry on; new ones have none to show in the end.
      await waitUntil(
        async () => {
          // Between two calls their tunnel goes.
          await delay(10 * RELEASE_MS);
          if (await mayCall("client", ADDRESS.server)) return false;
          return node.lines.some((line) =>
            /"access".*signing gRPC error .*ECONNREFUSED/.test(line),
          );
        },
        "never said why",
        BACK_MS_MAX,
      );
      const [held] = JSON.parse(await node.get(15000, "/config_dump")).certificates;
      assert.match(held.state, /^Unavailable: signing gRPC error .*ECONNREFUSED/);
      const metrics = await node.metrics();
      for (const sample of [
        /^ztunnel_certificates\{state="Unavailable"\} [1-9]/m,
        /^ztunnel_certificate_requests_total\{outcome="unreachable"\} [1-9]/m,
        /^ztunnel_xds_disconnected_seconds [1-9]/m,
      ]) {
        assert.match(metrics, sample);
      }
      await lab.startControlPlane();
      await waitUntil(() => mayCall("client", ADDRESS.server), "none came", BACK_MS_MAX);
    });

    test("hears by whose clock a certificate is not valid: one too old, one too young, and a server's", async () => {
      const node = lab.node("node-a");
      const clockFile = join(folder, "ahead");
      const putAhead = (seconds: number): void => {
        writeFileSync(`${clockFile}.new`, String(seconds * 1000));
        renameSync(`${clockFile}.new`, clockFile);
      };
      const startElsewhen = (): Promise<void> =>
        lab.startControlPlane({
          NODE_OPTIONS: `--import=${pathToFileURL(SKEWED_CLOCK).href}`,
          CLOCK_AHEAD: clockFile,
        });
      const says = async (
        text: RegExp,
        metric: RegExp,
        read: () => string | Promise<string>,
      ): Promise<void> =>
        waitUntil(
          async () => text.test(await read()) && metric.test(await node.metrics()),
          `node-a never said ${text} and ${metric}`,
          BACK_MS_MAX,
        );
      const log = (): string => node.lines.join("\n");
      putAhead(0);
      await killControlPlane();
      await startElsewhen();

      putAhead(-600);
      await says(
        /clock skew: a fresh certificate is valid since 7\d\ds ago, so this node's clock is ahead of the certificate authority's by about 6\d\ds/,
        /^ztunnel_clock_skew_seconds 6\d\d(\.|$)/m,
        log,
      );
      await says(
        /"Unavailable: the certificate that came for spiffe:\S+ expired at /,
        /^ztunnel_certificate_requests_total\{outcome="expired"\} [1-9]/m,
        () => node.get(15000, "/config_dump"),
      );

      putAhead(600);
      await says(
        /clock skew: a fresh certificate becomes valid in 4\d\ds only, so this node's clock is behind the certificate authority's by at least that/,
        /^ztunnel_clock_skew_seconds -4\d\d(\.|$)/m,
        log,
      );

      await killControlPlane();
      await startElsewhen();
      await says(
        /control plane \S+: not connected for \S+: .*certificate is not yet valid/,
        /^ztunnel_xds_connected 0$/m,
        () => node.get(15021, "/healthz/ready?verbose"),
      );
    });
  });

  describe("a mesh that is learnt on demand", { concurrency: false }, () => {
    let lab: MeshLab;
    const servers: LabServer[] = [];

    before(async () => {
      lab = await startTwoNodes({
        environment: { XDS_ON_DEMAND: "true", ISTIO_META_DNS_CAPTURE: "false" },
      });
      for (const name of ["server", "guarded", "outside"]) {
        servers.push(listenEcho(lab.host(name), APP_PORT));
      }
    });

    after(async () => {
      for (const server of servers) server.close();
      await lab?.close();
    });

    test("carries what the whole mesh carries", async () => {
      await echoOnce(lab, "client", ADDRESS.server);
      await echoOnce(lab, "client", ECHO_VIP, 80);
      await echoOnce(lab, "client", ADDRESS.outside);
      await echoOnce(lab, "friend", ADDRESS.guarded);
      await assert.rejects(echoOnce(lab, "client", ADDRESS.guarded));
    });

    test("is asked for by address, and the control plane tells no more than that", async () => {
      const told = (): string[] =>
        lab.controlLines.filter((line) => line.startsWith("proxy of node-a: sent"));
      /** An address that nobody has, so that a line comes, behind all the others. */
      const askAlso = async (unknown: string): Promise<number> => {
        const { length } = told();
        await assert.rejects(echoOnce(lab, "client", unknown));
        await waitUntil(
          () => told().slice(length).includes("proxy of node-a: sent 0 addresses, removed 1"),
          `nobody asked for ${unknown}`,
        );
        return told().length;
      };
      const before = await askAlso("10.99.0.1");
      // Its own two pods at first.
      assert.equal(told()[0], "proxy of node-a: sent 2 addresses, removed 0");
      assert(told().includes("proxy of node-a: sent 1 addresses, removed 0"), told().join("\n"));
      await echoOnce(lab, "client", ADDRESS.server);
      assert.equal(await askAlso("10.99.0.2"), before + 1, told().join("\n"));
    });
  });
});
