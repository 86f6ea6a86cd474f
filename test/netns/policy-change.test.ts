/** Policies that change while connections live, on a data plane in this process. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { describe, test } from "node:test";
import { parseConfig } from "../../src/config/config-parser.ts";
import { parseLocalMesh } from "../../src/config/local-mesh-file.ts";
import type { CertificateSource, DataPlane } from "../../src/dataplane/data-plane.ts";
import { startDataThreads } from "../../src/dataplane/data-threads.ts";
import { InlineDataPlane } from "../../src/dataplane/inline-data-plane.ts";
import { makeEngine } from "../../src/dataplane/make-engine.ts";
import { WorkerDataPlane } from "../../src/dataplane/worker-data-plane.ts";
import { installRedirect } from "../../src/embedded/redirect-rules.ts";
import type { MeshUpdate } from "../../src/mesh/mesh-update.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { measureLoopDelay } from "../../src/runtime/loop-delay.ts";
import { systemRandom } from "../../src/runtime/random.ts";
import { makeAffinityMemory } from "../../src/state/affinity-table.ts";
import { MeshMemory } from "../../src/state/mesh-memory.ts";
import { MeshState } from "../../src/state/mesh-state.ts";
import { MeshWriter } from "../../src/state/mesh-writer.ts";
import { writeMesh } from "../conformance/data-plane.ts";
import { connectFrom, type LabServer, listenEcho } from "../support/lab-application.ts";
import { makeAffinity, match, mesh, noHosts } from "../support/mesh-fixture.ts";
import { type LabHost, NetnsLab, requireNetns } from "../support/netns-lab.ts";
import { silentLogger } from "../support/silent-logger.ts";
import { testCa } from "../support/test-ca.ts";
import { ADDRESS, APP_PORT, pingPong, readingEnd, TWO_NODES_MESH } from "../support/two-nodes.ts";
import { waitUntil } from "../support/wait-until.ts";

const PODS = ["client", "friend", "server"] as const;

for (const [name, makeDataPlane] of [
  ["on the main thread", inlineDataPlane],
  ["on two data threads", workerDataPlane],
] as const) {
  describe(`a policy change, ${name}`, { skip: requireNetns("iptables") }, () => {
    test("ends the connections that it denies and no others", { timeout: 120_000 }, async () => {
      const ca = await testCa();
      const memory = new MeshMemory();
      const writer = new MeshWriter(memory, { localNode: undefined });
      const dataPlane = makeDataPlane(memory, (identity) => ca.certificate(identity));
      const apply = (updates: readonly MeshUpdate[]): void => writeMesh(writer, dataPlane, updates);
      const net = new NetnsLab();
      const fds: number[] = [];
      let server: LabServer | undefined;
      try {
        const pods = new Map<string, LabHost>();
        apply(parseLocalMesh(TWO_NODES_MESH, "mesh"));
        for (const pod of PODS) {
          const host = net.addHost(pod, { ipv4: `${ADDRESS[pod]}/24` });
          pods.set(pod, host);
          const netnsFd = openSync(host.path, "r");
          fds.push(netnsFd);
          await installRedirect(netnsFd, { dnsCapture: false, inboundCapture: true });
          await dataPlane.startWorkload(
            { uid: pod, name: pod, namespace: "default", serviceAccount: pod },
            netnsFd,
          );
        }
        const outside = net.addHost("outside", { ipv4: `${ADDRESS.outside}/24` });
        const hostOf = (pod: string): LabHost => pods.get(pod) ?? outside;
        server = listenEcho(hostOf("server"), APP_PORT);
        const [client, friend, stranger] = await Promise.all(
          ["client", "friend", "outside"].map((from) =>
            connectFrom(hostOf(from), ADDRESS.server, APP_PORT),
          ),
        );
        assert.ok(client && friend && stranger);
        for (const socket of [client, friend, stranger]) await pingPong(socket);

        const denied = [client, stranger].map(readingEnd);
        const onlyFriends = mesh
          .allow("only-friends")
          .scope("Namespace")
          .rule({ principals: [{ kind: "exact", value: "cluster.local/ns/default/sa/friend" }] });
        apply([{ kind: "policy", policy: onlyFriends.value }]);
        assert.deepEqual(await Promise.all(denied), ["ECONNRESET", "ECONNRESET"]);
        await pingPong(friend);
        const late = await connectFrom(hostOf("client"), ADDRESS.server, APP_PORT);
        late.write("hello");
        // EOF if the denial was sooner than the client's word.
        assert.match(await readingEnd(late), /^(ECONNRESET|EOF)$/);

        const alsoDenied = readingEnd(friend);
        const nobody = mesh
          .deny("nobody")
          .scope("Global")
          .rule(match({ destinationPorts: [APP_PORT] }));
        apply([{ kind: "policy", policy: nobody.value }]);
        assert.equal(await alsoDenied, "ECONNRESET");

        apply([
          { kind: "remove-policy", name: "default/only-friends" },
          { kind: "remove-policy", name: "default/nobody" },
        ]);
        // Each data thread hears of it in its own time.
        await waitUntil(async () => {
          const again = await connectFrom(hostOf("client"), ADDRESS.server, APP_PORT);
          const isServed = await pingPong(again).then(
            () => true,
            () => false,
          );
          again.end();
          if (isServed) await once(again, "close");
          return isServed;
        }, "still denied");
      } finally {
        server?.close();
        await dataPlane.close();
        for (const fd of fds) closeSync(fd);
        net.close();
      }
    });
  });
}

const options = {
  onDemand: false,
  proxy: parseConfig({ LOCAL_XDS: "{}" }, undefined).proxy,
  proxyEnabled: true,
  dns: undefined,
};

function inlineDataPlane(memory: MeshMemory, certificateFor: CertificateSource): DataPlane {
  return new InlineDataPlane(
    {
      engine: makeEngine(systemClock, silentLogger, options),
      mesh: new MeshState(memory),
      certificateFor,
      learn: undefined,
      outlierChanged() {},
      affinity: makeAffinity(systemClock),
      addressesOf: noHosts,
      log: silentLogger,
      clock: systemClock,
      random: systemRandom(),
      loopDelay: measureLoopDelay(),
    },
    options,
  );
}

function workerDataPlane(memory: MeshMemory, certificateFor: CertificateSource): DataPlane {
  return new WorkerDataPlane(
    {
      clock: systemClock,
      certificateFor,
      learn: () => Promise.resolve(),
      outlierChanged() {},
      addressesOf: noHosts,
      writeLog() {},
      threadFailed(error) {
        throw error;
      },
    },
    {
      threads: startDataThreads(2),
      mesh: memory.buffer,
      affinity: makeAffinityMemory(64),
      options,
      log: { format: "plain", filter: "info" },
    },
  );
}
