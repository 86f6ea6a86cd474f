/** Many connections at the same moment: they wait for the daemon in the kernel, and none is refused. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { connectFrom, type LabServer, listenEcho } from "../support/lab-application.ts";
import type { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { listenOverflows } from "../support/proc.ts";
import {
  ADDRESS,
  APP_PORT,
  echoOnce,
  PATHS,
  type PathName,
  pingPong,
  startTwoNodes,
} from "../support/two-nodes.ts";

const BURST_COUNT = 1000;
/** Long enough for all of them to arrive. */
const HELD_MS = 300;

/** Whose daemon the burst meets first, and in whose namespace it listens. */
const MET: Readonly<Record<PathName, { readonly node: string; readonly pod: string }>> = {
  HBONE: { node: "node-a", pod: "client" },
  passthrough: { node: "node-a", pod: "client" },
  "plaintext inbound": { node: "node-b", pod: "server" },
};

describe("bursts of connections", { skip: requireNetns("iptables") }, () => {
  let lab: MeshLab;
  let servers: readonly LabServer[];

  before(async () => {
    lab = await startTwoNodes();
    servers = ["server", "outside"].map((name) => listenEcho(lab.host(name), APP_PORT));
  });
  after(async () => {
    for (const server of servers ?? []) server.close();
    await lab?.close();
  });

  for (const path of Object.keys(PATHS) as PathName[]) {
    test(`${BURST_COUNT} at once all wait in the kernel while the daemon is held up, ${path}`, {
      timeout: 120_000,
    }, async () => {
      const { from, to } = PATHS[path];
      const { node, pod } = MET[path];
      await echoOnce(lab, from, ADDRESS[to]);
      const overflowsBefore = listenOverflows(lab.net, lab.host(pod));
      const daemon = lab.node(node).process;
      daemon.kill("SIGSTOP");
      const opened = Array.from({ length: BURST_COUNT }, async () => {
        const socket = await connectFrom(lab.host(from), ADDRESS[to], APP_PORT);
        await pingPong(socket);
        socket.destroy();
      });
      setTimeout(() => daemon.kill("SIGCONT"), HELD_MS);
      await Promise.all(opened);
      assert.equal(listenOverflows(lab.net, lab.host(pod)) - overflowsBefore, 0);
    });
  }
});
