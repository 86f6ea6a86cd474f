/** What stands on the wire between nodes while daemons come, go and die. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { describe, test } from "node:test";
import { WireCapture } from "../../src/embedded/wire-capture.ts";
import { formatHostPort } from "../../src/mesh/socket-address.ts";
import { Netns } from "../../src/net/netns.ts";
import { ConnectionLoad } from "../support/connection-load.ts";
import { listenEcho } from "../support/lab-application.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { ADDRESS, APP_PORT, echoOnce, IPV6_ADDRESS, startTwoNodes } from "../support/two-nodes.ts";
import { waitUntil } from "../support/wait-until.ts";

/** A part of what every connection of the load and of the control sends. */
const MARKER = "x".repeat(64);

const OUTSIDE_IPV6 = "fd66::33";

describe("the wire between nodes", { skip: requireNetns("iptables") }, () => {
  test("carries nothing readable of a meshed pair by IPv4 and IPv6, whatever becomes of its daemons", {
    timeout: 170_000,
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
    const loads = [ADDRESS.server, IPV6_ADDRESS.server].map(
      (ip) => new ConnectionLoad(lab, { from: "client", ip }, 25),
    );
    t.after(() => Promise.all(loads.map((load) => load.stop())));
    /** Until some more of either family have got through. */
    const carriesOn = async (): Promise<void> => {
      const enough = loads.map((load) => load.successCount + 5);
      await waitUntil(
        () => loads.every((load, i) => load.successCount > (enough[i] ?? 0)),
        "no connection gets through",
      );
    };

    await carriesOn();
    const old = lab.node("node-b").process;
    await lab.startSuccessor("node-b", "10.66.0.103");
    old.kill("SIGTERM");
    await once(old, "exit");
    await carriesOn();
    assert.deepEqual(
      loads.flatMap((load) => load.failures),
      [],
    );
    for (const name of ["node-a", "node-b"]) {
      await lab.node(name).restart();
      await carriesOn();
      const died = lab.node(name).process;
      died.kill("SIGKILL");
      await once(died, "exit");
      const failed = loads.map((load) => load.failures.length);
      await waitUntil(
        () => loads.every((load, i) => load.failures.length > (failed[i] ?? 0) + 3),
        "something gets through without a daemon",
      );
      await lab.node(name).restart();
      await carriesOn();
    }
    for (const load of loads) {
      const { count, failures } = await load.stop();
      t.diagnostic(`${count} connections, ${failures.length} failed while a daemon was away`);
    }

    for (const { client, server } of [ADDRESS, IPV6_ADDRESS]) {
      const flows = capture.flows.filter(({ source, destination }) =>
        [source, destination].every((end) =>
          [client, server].some((ip) => end.startsWith(formatHostPort(ip, 1).slice(0, -1))),
        ),
      );
      assert.ok(flows.length >= 10, `tunnels of all the daemons were seen at ${server}`);
      for (const { source, destination, isTls } of flows) {
        assert.match(`${source} ${destination}`, /:15008( |$)/);
        assert.equal(isTls, true, `${source} ${destination}`);
      }
    }
    assert.equal(capture.markerCount, 0);

    await echoOnce(lab, "client", ADDRESS.outside);
    await waitUntil(() => capture.markerCount > 0, "the capture would not have seen it");
    const outside = lab.host("outside");
    lab.net.exec(outside, "ip", "addr", "add", `${OUTSIDE_IPV6}/64`, "dev", "eth0", "nodad");
    const { markerCount } = capture;
    await echoOnce(lab, "client", OUTSIDE_IPV6);
    await waitUntil(() => capture.markerCount > markerCount, "nor over IPv6");
  });
});
