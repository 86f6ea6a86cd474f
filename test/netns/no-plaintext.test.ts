/** What stands on the wire between nodes while daemons come, go and die. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { describe, test } from "node:test";
import { WireCapture } from "../../src/embedded/wire-capture.ts";
import { Netns } from "../../src/net/netns.ts";
import { ConnectionLoad } from "../support/connection-load.ts";
import { listenEcho } from "../support/lab-application.ts";
import { waitUntil } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { ADDRESS, APP_PORT, echoOnce, PATHS, startTwoNodes } from "../support/two-nodes.ts";

/** A part of what every connection of the load and of the control sends. */
const MARKER = "x".repeat(64);

describe("the wire between nodes", { skip: requireNetns("iptables") }, () => {
  test("carries nothing readable of a meshed pair, whatever becomes of its daemons", {
    timeout: 60_000,
  }, async (t) => {
    const lab = await startTwoNodes({ environment: { CONNECTION_TERMINATION_DEADLINE: "1s" } });
    t.after(() => lab.close());
    const servers = [lab.host("server"), lab.host("outside")].map((host) =>
      listenEcho(host, APP_PORT),
    );
    t.after(() => servers.map((server) => server.close()));
    // Every frame between pods passes the bridge.
    const wire = Netns.open(lab.host("client").path.replace(/client$/, "bridge"));
    t.after(() => wire.close());
    const capture = new WireCapture(wire, MARKER);
    t.after(() => capture.close());
    const load = new ConnectionLoad(lab, PATHS.HBONE, 50);
    t.after(() => load.stop());
    /** So many connections later, of which some get through. */
    const carriesOn = async (): Promise<void> => {
      const successes = (): number => load.successCount;
      const before = successes();
      await waitUntil(() => successes() > before + 10, "no connection gets through");
    };

    await carriesOn();
    const old = lab.node("node-b").process;
    await lab.startSuccessor("node-b", "10.66.0.103");
    old.kill("SIGTERM");
    await once(old, "exit");
    await carriesOn();
    assert.deepEqual(load.failures, []);
    for (const name of ["node-a", "node-b"]) {
      await lab.node(name).restart();
      await carriesOn();
      const died = lab.node(name).process;
      died.kill("SIGKILL");
      await once(died, "exit");
      const { length } = load.failures;
      await waitUntil(() => load.failures.length > length + 5, "nothing fails without a daemon");
      await lab.node(name).restart();
      await carriesOn();
    }
    const { count, failures } = await load.stop();
    t.diagnostic(`${count} connections, ${failures.length} failed while a daemon was away`);

    const flows = capture.flows.filter(({ source, destination }) =>
      [source, destination].every((end) =>
        [ADDRESS.client, ADDRESS.server].some((ip) => end.startsWith(`${ip}:`)),
      ),
    );
    assert.ok(flows.length >= 10, "tunnels of all the daemons were seen");
    for (const { source, destination, isTls } of flows) {
      assert.match(`${source} ${destination}`, /:15008( |$)/);
      assert.equal(isTls, true, `${source} ${destination}`);
    }
    assert.equal(capture.markerCount, 0);

    await echoOnce(lab, "client", ADDRESS.outside);
    await waitUntil(() => capture.markerCount > 0, "the capture would not have seen it");
  });
});
