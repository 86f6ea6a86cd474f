/**
 * What every data plane must do for the rest of the process, on whatever threads it runs: played in
 * real namespaces, because that is where listeners are shared, taken and left behind.
 */
import assert from "node:assert/strict";
import { closeSync, openSync } from "node:fs";
import type { Socket } from "node:net";
import { after, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { connect as connectTls } from "node:tls";
import { parseConfig } from "../../src/config/config-parser.ts";
import { parseLocalMesh } from "../../src/config/local-mesh-file.ts";
import type { CertificateSource, DataPlane } from "../../src/dataplane/data-plane.ts";
import type { DataThreadOptions } from "../../src/dataplane/data-thread.ts";
import { installRedirect } from "../../src/embedded/redirect-rules.ts";
import type { EnrolledWorkload } from "../../src/mesh/enrolled-workload.ts";
import { formatSpiffeId, type Identity } from "../../src/mesh/identity.ts";
import type { IpAddress } from "../../src/mesh/ip-address.ts";
import type { MeshUpdate } from "../../src/mesh/mesh-update.ts";
import type { WorkloadCertificate } from "../../src/mesh/workload-certificate.ts";
import type { AddressesOf } from "../../src/proxy/proxy-options.ts";
import type { TrafficSample } from "../../src/proxy/traffic-metrics.ts";
import { MeshMemory } from "../../src/state/mesh-memory.ts";
import { MeshWriter } from "../../src/state/mesh-writer.ts";
import { parseRevocationLists } from "../../src/tls/revocation-list.ts";
import { connectFrom, type LabServer, listenEcho, listenOn } from "../support/lab-application.ts";
import { LeakCheck } from "../support/leak-check.ts";
import { ip, mesh, noHosts } from "../support/mesh-fixture.ts";
import { type LabHost, NetnsLab, requireNetns } from "../support/netns-lab.ts";
import { type TestCa, testCa, testIdentity } from "../support/test-ca.ts";
import { buildCrl } from "../support/test-crl.ts";
import { ADDRESS, APP_PORT, pingPong, readingEnd, TWO_NODES_MESH } from "../support/two-nodes.ts";

const PORTS = [15001, 15006, 15008];
const HBONE_PORT = 15008;

/** Enough that no thread goes without: 2 threads miss one with a chance of 1 in 2^39. */
const MANY = 40;

export interface DataPlaneSuiteOptions {
  readonly makeDataPlane: (deps: DataPlaneParts, options: DataThreadOptions) => DataPlane;
  /** Threads that share the ports of a workload. */
  readonly threadCount: number;
}

export interface DataPlaneParts {
  readonly memory: MeshMemory;
  readonly certificateFor: CertificateSource;
  readonly learn: (key: string) => Promise<void>;
  readonly addressesOf: AddressesOf;
  /** Takes finished log lines. */
  readonly writeLog: (text: string) => void;
}

/** Writes, then tells the data plane. */
export function writeMesh(
  writer: MeshWriter,
  dataPlane: DataPlane,
  updates: readonly MeshUpdate[],
): void {
  writer.apply(updates);
  dataPlane.meshChanged(writer.commit());
}

/** How a stage's proxies differ from the defaults. */
export type StageOptions = Partial<DataThreadOptions["proxy"] & { onDemand: boolean }>;

/** Pods `client` and `server` behind redirect rules, `outside` without: made once for all tests. */
export class DataPlaneLab {
  readonly net: NetnsLab = new NetnsLab();
  readonly client: LabHost = this.net.addHost("client", { ipv4: `${ADDRESS.client}/24` });
  readonly server: LabHost = this.net.addHost("server", { ipv4: `${ADDRESS.server}/24` });
  readonly outside: LabHost = this.net.addHost("outside", { ipv4: `${ADDRESS.outside}/24` });
  readonly ca: TestCa;
  readonly #certificates = new Map<string, Promise<WorkloadCertificate>>();

  private constructor(ca: TestCa) {
    this.ca = ca;
  }

  static async open(): Promise<DataPlaneLab> {
    const lab = new DataPlaneLab(await testCa());
    for (const host of [lab.client, lab.server]) {
      const netnsFd = openSync(host.path, "r");
      await installRedirect(netnsFd, { dnsCapture: false, inboundCapture: true });
      closeSync(netnsFd);
    }
    return lab;
  }

  /** The same one each time. */
  certificate(identity: Identity): Promise<WorkloadCertificate> {
    const key = formatSpiffeId(identity);
    const certificate = this.#certificates.get(key) ?? this.ca.certificate(identity);
    this.#certificates.set(key, certificate);
    return certificate;
  }

  /** Ports of the proxy with how many sockets listen on each. */
  listening(host: LabHost): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const line of this.net.exec(host, "ss", "-Hltn").split("\n")) {
      const port = /:(\d+)\s/.exec(line)?.[1];
      if (port === undefined || !PORTS.includes(Number(port))) continue;
      counts[port] = (counts[port] ?? 0) + 1;
    }
    return counts;
  }

  close(): void {
    this.net.close();
  }
}

/** One data plane in the lab, with what it asked and wrote. */
export class DataPlaneStage {
  readonly dataPlane: DataPlane;
  /** Service accounts for which certificates were asked, in order. */
  readonly asked: string[] = [];
  certificateFor: CertificateSource;
  log = "";
  /** Keys that were asked for on demand. */
  readonly learnt: string[] = [];
  /** What every such question brings. */
  knownOnDemand: readonly MeshUpdate[] = [];
  /** Addresses of host names. */
  readonly hosts: Map<string, readonly IpAddress[]> = new Map();
  readonly #lab: DataPlaneLab;
  readonly #writer: MeshWriter;
  readonly #netnsFds: number[] = [];
  readonly #closers: (() => void)[] = [];

  constructor(
    lab: DataPlaneLab,
    makeDataPlane: DataPlaneSuiteOptions["makeDataPlane"],
    options: StageOptions,
  ) {
    this.#lab = lab;
    this.certificateFor = (identity) => lab.certificate(identity);
    const { proxy } = parseConfig({ LOCAL_XDS: "{}" }, undefined);
    const { onDemand = false, ...proxyOptions } = options;
    const memory = new MeshMemory();
    this.#writer = new MeshWriter(memory, { localNode: undefined });
    this.dataPlane = makeDataPlane(
      {
        memory,
        certificateFor: (identity) => {
          this.asked.push(identity.serviceAccount);
          return this.certificateFor(identity);
        },
        learn: async (key) => {
          this.learnt.push(key);
          this.apply(this.knownOnDemand);
        },
        addressesOf: async (hostname) => this.hosts.get(hostname) ?? noHosts(hostname),
        writeLog: (text) => {
          this.log += text;
        },
      },
      { onDemand, proxy: { ...proxy, ...proxyOptions }, proxyEnabled: true, dns: undefined },
    );
    this.apply(parseLocalMesh(TWO_NODES_MESH, "mesh"));
  }

  apply(updates: readonly MeshUpdate[]): void {
    writeMesh(this.#writer, this.dataPlane, updates);
  }

  start(host: LabHost): Promise<void> {
    const netnsFd = openSync(host.path, "r");
    this.#netnsFds.push(netnsFd);
    return this.dataPlane.startWorkload(this.enrolled(host), netnsFd);
  }

  async startBoth(): Promise<void> {
    await Promise.all([this.start(this.#lab.client), this.start(this.#lab.server)]);
  }

  enrolled(host: LabHost): EnrolledWorkload {
    const name = host === this.#lab.client ? "client" : "server";
    return { uid: `uid-${name}`, name, namespace: "default", serviceAccount: name };
  }

  echo(): LabServer {
    const server = listenEcho(this.#lab.server, APP_PORT);
    this.#closers.push(() => server.close());
    return server;
  }

  /** From `client`, by default to the echoing application of `server`. */
  async connect(address: string = ADDRESS.server, port: number = APP_PORT): Promise<Socket> {
    const socket = await connectFrom(this.#lab.client, address, port);
    this.#closers.push(() => socket.destroy());
    return socket;
  }

  /** A handshake of a stranger with `server`. @returns the fingerprint of what it showed. */
  async handshake(): Promise<string> {
    const mine = await this.#lab.certificate(testIdentity("stranger"));
    const socket = await connectFrom(this.#lab.outside, ADDRESS.server, HBONE_PORT);
    return new Promise((resolve, reject) => {
      const tls = connectTls({
        socket,
        cert: mine.chainPem.join(""),
        key: mine.privateKeyPem,
        ca: [...mine.rootsPem],
        ALPNProtocols: ["h2"],
        minVersion: "TLSv1.3",
        checkServerIdentity: () => undefined,
      });
      tls.once("error", reject);
      tls.once("secureConnect", () => {
        resolve(tls.getPeerX509Certificate()?.fingerprint256 ?? "");
        tls.destroy();
      });
    });
  }

  /** Ends what the test opened; the data plane last. */
  async close(): Promise<void> {
    for (const close of this.#closers) close();
    await this.dataPlane.close();
    for (const fd of this.#netnsFds) closeSync(fd);
  }
}

interface Totals {
  readonly opened: number;
  readonly closed: number;
  readonly failed: number;
  readonly receivedBytes: number;
  readonly sentBytes: number;
  readonly socketsOpen: number;
}

function totals(samples: readonly TrafficSample[]): Totals {
  const series = samples.flatMap((sample) => sample.series);
  const sum = (pick: (delta: (typeof series)[number]) => number): number =>
    series.reduce((total, delta) => total + pick(delta), 0);
  return {
    opened: sum(({ opened }) => opened),
    closed: sum(({ closed }) => closed),
    failed: sum(({ failed }) => failed),
    receivedBytes: sum(({ receivedBytes }) => receivedBytes),
    sentBytes: sum(({ sentBytes }) => sentBytes),
    socketsOpen: samples
      .flatMap((sample) => sample.socketsOpen)
      .reduce((total, { change }) => total + change, 0),
  };
}

export function dataPlaneSuite(name: string, options: DataPlaneSuiteOptions): void {
  const { makeDataPlane, threadCount } = options;

  describe(`${name} as a data plane`, { skip: requireNetns("iptables", "ss") }, () => {
    let lab: DataPlaneLab;
    const eachPort = (count: number): Record<string, number> =>
      Object.fromEntries(PORTS.map((port) => [port, count]));
    const refused = (socket: Promise<Socket>): Promise<void> =>
      assert.rejects(socket, { code: "ECONNREFUSED" });

    before(async () => {
      lab = await DataPlaneLab.open();
    });
    after(() => lab.close());

    function story(
      title: string,
      run: (stage: DataPlaneStage) => Promise<void>,
      stageOptions: StageOptions = {},
    ): void {
      it(title, { timeout: 90_000 }, async () => {
        const leaks = new LeakCheck();
        const stage = new DataPlaneStage(lab, makeDataPlane, stageOptions);
        try {
          await run(stage);
        } finally {
          await stage.close();
        }
        assert.deepEqual([lab.listening(lab.client), lab.listening(lab.server)], [{}, {}]);
        await leaks.assertNone();
      });
    }

    story(
      "asks for a destination that it does not know, once, before it chooses the way",
      async (stage) => {
        const uid = "two-nodes//Pod/default/server";
        stage.knownOnDemand = parseLocalMesh(TWO_NODES_MESH, "mesh").filter(
          (update) => update.kind === "workload" && update.workload.uid === uid,
        );
        stage.apply([{ kind: "remove-address", name: uid }]);
        await stage.startBoth();
        stage.echo();
        await pingPong(await stage.connect());
        assert.deepEqual(stage.learnt, [`/${ADDRESS.server}`]);
        // Plain text would have needed no certificate of the client's.
        assert(stage.asked.includes("client"));
        await pingPong(await stage.connect());
        assert.equal(stage.learnt.length, 1);
      },
      { onDemand: true },
    );

    story("reaches a workload that is known by its host name only", async (stage) => {
      const vip = "10.66.0.77";
      const uid = "two-nodes//Pod/default/server";
      stage.apply([
        { kind: "service", service: mesh.service("echo").at(vip).port(80, APP_PORT).value },
        ...parseLocalMesh(TWO_NODES_MESH, "mesh").flatMap((update): MeshUpdate[] => {
          if (update.kind !== "workload" || update.workload.uid !== uid) return [];
          return [{ kind: "workload", workload: { ...update.workload, ips: [], hostname: "db" } }];
        }),
      ]);
      await stage.startBoth();
      stage.echo();
      const early = await stage.connect(vip, 80);
      assert.match(await readingEnd(early), /^(EOF|ECONNRESET)$/);
      await waitForText(stage, `no ip addresses were resolved for workload: ${uid}`);
      stage.hosts.set("db", [ip(ADDRESS.server)]);
      await pingPong(await stage.connect(vip, 80));
      const lookups = (await stage.dataPlane.collect()).flatMap((sample) => sample.lookups);
      assert.equal(
        lookups.reduce((total, { count }) => total + count, 0),
        2,
      );
      assert.equal(lookups[0]?.labels.at(-1), "db");
    });

    story("starts a workload on every thread, stops it at once, starts it again", async (stage) => {
      const { dataPlane } = stage;
      await stage.startBoth();
      assert.deepEqual(lab.listening(lab.client), eachPort(threadCount));
      stage.echo();
      const socket = await stage.connect();
      await pingPong(socket);
      const end = readingEnd(socket);
      await dataPlane.stopWorkload("uid-client", 0).ended;
      assert.deepEqual(lab.listening(lab.client), {});
      assert.equal(await end, "EOF");
      await refused(stage.connect());
      assert.deepEqual(lab.listening(lab.server), eachPort(threadCount));

      await dataPlane.stopWorkload("uid-client", 0).ended;
      await dataPlane.stopWorkload("never heard of", 0).ended;
      await stage.start(lab.client);
      await pingPong(await stage.connect());
    });

    for (const reusePort of [true, false]) {
      story(
        `lets a workload go that starts again while its connections go on, ${reusePort ? "sharing ports" : "without sharing ports"}`,
        async (stage) => {
          const { dataPlane } = stage;
          const running = eachPort(reusePort ? threadCount : 1);
          await stage.startBoth();
          stage.echo();
          const sockets = await Promise.all(Array.from({ length: MANY }, () => stage.connect()));
          await Promise.all(sockets.map((socket) => pingPong(socket)));
          const { portsFree, ended } = dataPlane.stopWorkload("uid-server", 600_000);
          await portsFree;
          assert.deepEqual(lab.listening(lab.server), {});
          await Promise.all(sockets.map((socket) => pingPong(socket)));

          await stage.start(lab.server);
          assert.deepEqual(lab.listening(lab.server), running);
          const another = await stage.connect();
          await pingPong(another);
          await Promise.all(sockets.map((socket) => pingPong(socket)));
          const { inbound } = await dataPlane.connections("uid-server");
          assert.equal(inbound.length, MANY + 1);

          const ends = [...sockets, another].map(readingEnd);
          stage.apply(parseLocalMesh(DENY_ALL, "policies"));
          assert.deepEqual([...new Set(await Promise.all(ends))], ["ECONNRESET"]);
          await ended;
        },
        { reusePort },
      );
    }

    for (const revoked of ["client", "server"]) {
      story(
        `cuts off a revoked ${revoked} on every thread, keeps it out, and lets it in again`,
        async (stage) => {
          const { dataPlane } = stage;
          await stage.startBoth();
          stage.echo();
          const sockets = await Promise.all(Array.from({ length: MANY }, () => stage.connect()));
          await Promise.all(sockets.map((socket) => pingPong(socket)));
          const ends = sockets.map(readingEnd);
          const { chainPem } = await lab.certificate(testIdentity(revoked));
          const list = await buildCrl(lab.ca.signer(), chainPem.slice(0, 1));
          dataPlane.revocationsChanged(parseRevocationLists(list));
          assert.deepEqual(new Set(await Promise.all(ends)), new Set(["ECONNRESET"]));

          const newcomer = await stage.connect();
          newcomer.write("x");
          assert.match(await readingEnd(newcomer), /EOF|ECONNRESET/);
          const counts = (await dataPlane.collect()).map(({ revocations }) => revocations);
          const reporter = revoked === "client" ? "destination" : "source";
          assert.ok(counts.reduce((sum, count) => sum + count[reporter].rejected, 0) >= 2);

          dataPlane.revocationsChanged([]);
          await pingPong(await stage.connect());
          // Threads hand their lines over now and then.
          await waitForText(stage, "Revoked");
          await waitForText(stage, "connection closed: peer certificate revoked by CRL");
        },
        { checkRevocation: true },
      );
    }

    story("leaves nothing bound when one of its ports is taken, and says so", async (stage) => {
      for (const port of PORTS) {
        const squatter = listenOn(lab.client, port, (socket) => socket.destroy());
        await assert.rejects(stage.start(lab.client), {
          message: `Bind([::]:${port}, Os { code: 98, kind: AddrInUse, message: "Address already in use" })`,
        });
        assert.deepEqual(lab.listening(lab.client), { [port]: 1 });
        squatter.close();
      }
      await stage.start(lab.client);
      assert.deepEqual(lab.listening(lab.client), eachPort(threadCount));
    });

    story("spreads connections over its threads and counts what each one saw", async (stage) => {
      await stage.startBoth();
      stage.echo();
      const sockets = await Promise.all(Array.from({ length: MANY }, () => stage.connect()));
      await Promise.all(sockets.map((socket) => pingPong(socket, 100)));
      const samples = await stage.dataPlane.collect();
      assert.equal(samples.length, threadCount);
      for (const sample of samples) assert.ok(totals([sample]).opened > 0, "an idle thread");
      const first = totals(samples);
      assert.equal(first.opened, 2 * MANY);
      assert.deepEqual(
        [first.receivedBytes, first.sentBytes, first.closed, first.failed],
        [2 * MANY * 100, 2 * MANY * 100, 0, 0],
      );

      await Promise.all(sockets.map((socket) => pingPong(socket, 7)));
      const second = totals(await stage.dataPlane.collect());
      assert.deepEqual(
        [second.opened, second.receivedBytes, second.sentBytes, second.closed],
        [0, 2 * MANY * 7, 2 * MANY * 7, 0],
      );

      const ends = sockets.map(readingEnd);
      for (const socket of sockets) socket.end();
      await Promise.all(ends);
      let closed = 0;
      while (closed < 2 * MANY) {
        const delta = totals(await stage.dataPlane.collect());
        assert.deepEqual([delta.opened, delta.failed, delta.receivedBytes], [0, 0, 0]);
        closed += delta.closed;
        await delay(5);
      }
      assert.equal(closed, 2 * MANY);
    });

    story(
      "keeps a workload on one thread when ports can't be shared",
      async (stage) => {
        await stage.startBoth();
        assert.deepEqual(lab.listening(lab.client), eachPort(1));
        assert.deepEqual(lab.listening(lab.server), eachPort(1));
        stage.echo();
        const sockets = await Promise.all(Array.from({ length: MANY }, () => stage.connect()));
        await Promise.all(sockets.map((socket) => pingPong(socket)));
        for (const reporter of ["source", "destination"]) {
          const threads = (await stage.dataPlane.collect()).filter(({ series }) =>
            series.some(({ labels }) => labels[0] === reporter),
          );
          assert.ok(threads.length <= 1);
        }
      },
      { reusePort: false },
    );

    story("asks once per thread for each certificate, however many connect", async (stage) => {
      await stage.startBoth();
      stage.echo();
      const sockets = await Promise.all(Array.from({ length: MANY }, () => stage.connect()));
      await Promise.all(sockets.map((socket) => pingPong(socket)));
      const count = (account: string): number =>
        stage.asked.filter((one) => one === account).length;
      assert.equal(count("client"), threadCount);
      // Each thread of the client has one tunnel; both may have come to the same thread.
      assert.ok(count("server") >= 1 && count("server") <= threadCount, `${count("server")}`);
    });

    story("ends a connection without a certificate and asks again for the next", async (stage) => {
      await stage.startBoth();
      stage.echo();
      const { certificateFor } = stage;
      stage.certificateFor = async () => {
        throw new Error("the authority is on holiday");
      };
      const failed = await stage.connect();
      failed.write("hello");
      assert.match(await readingEnd(failed), /^(EOF|ECONNRESET)$/);
      stage.certificateFor = certificateFor;
      await pingPong(await stage.connect());
      // Whatever the last thread wrote is flushed with its answer.
      await stage.dataPlane.stopWorkload("uid-client", 0).ended;
      await waitForText(stage, "the authority is on holiday");
    });

    story("shows a renewed certificate from then on and keeps what runs", async (stage) => {
      const { dataPlane } = stage;
      await stage.startBoth();
      stage.echo();
      const socket = await stage.connect();
      await pingPong(socket);
      const shown = async (): Promise<string[]> => [
        ...new Set(await Promise.all(Array.from({ length: MANY / 2 }, () => stage.handshake()))),
      ];
      const [old, ...others] = await shown();
      assert.deepEqual(others, []);
      dataPlane.certificateRenewed(await lab.ca.certificate(testIdentity("server")));
      // Answered after the renewal has arrived.
      await dataPlane.collect();
      const renewed = await shown();
      assert.equal(renewed.length, 1);
      assert.notEqual(renewed[0], old);
      await pingPong(socket);

      dataPlane.certificateForgotten(testIdentity("server"));
      await dataPlane.collect();
      assert.deepEqual(await shown(), [old]);
    });

    story("resets a connection that a new policy denies", async (stage) => {
      const { dataPlane } = stage;
      await stage.startBoth();
      stage.echo();
      const sockets = await Promise.all(Array.from({ length: MANY }, () => stage.connect()));
      await Promise.all(sockets.map((socket) => pingPong(socket)));
      const ends = sockets.map(readingEnd);
      stage.apply(parseLocalMesh(DENY_ALL, "policies"));
      assert.deepEqual([...new Set(await Promise.all(ends))], ["ECONNRESET"]);
      stage.apply([{ kind: "remove-policy", name: "default/nobody" }]);
      await dataPlane.collect();
      await pingPong(await stage.connect());
    });

    story("drains: listeners go at once, connections at the deadline", async (stage) => {
      await stage.startBoth();
      stage.echo();
      const sockets = await Promise.all(Array.from({ length: MANY }, () => stage.connect()));
      await Promise.all(sockets.map((socket) => pingPong(socket)));
      const ends = sockets.map(readingEnd);
      const startedAt = performance.now();
      const draining = stage.dataPlane.drain(300);
      await stage.dataPlane.collect();
      assert.deepEqual([lab.listening(lab.client), lab.listening(lab.server)], [{}, {}]);
      await refused(stage.connect());
      await draining;
      assert.ok(performance.now() - startedAt >= 299);
      assert.deepEqual([...new Set(await Promise.all(ends))], ["EOF"]);
    });

    story("has drained as soon as the last connection has ended", async (stage) => {
      await stage.startBoth();
      stage.echo();
      const socket = await stage.connect();
      await pingPong(socket);
      const draining = stage.dataPlane.drain(60_000);
      await pingPong(socket);
      socket.end();
      await draining;
    });

    story("closes with everything open, and again", async (stage) => {
      await stage.startBoth();
      stage.echo();
      const sockets = await Promise.all(Array.from({ length: MANY }, () => stage.connect()));
      await Promise.all(sockets.map((socket) => pingPong(socket)));
      const ends = sockets.map(readingEnd);
      await stage.dataPlane.close();
      assert.deepEqual([lab.listening(lab.client), lab.listening(lab.server)], [{}, {}]);
      assert.deepEqual([...new Set(await Promise.all(ends))], ["EOF"]);
      await stage.dataPlane.close();
    });
  });
}

const DENY_ALL = `
policies:
  - name: nobody
    namespace: default
    scope: Namespace
    action: Deny
    dryRun: false
    rules: [[[{ destinationPorts: [${APP_PORT}] }]]]
`;

async function waitForText(stage: DataPlaneStage, text: string): Promise<void> {
  while (!stage.log.includes(text)) await delay(5);
}
