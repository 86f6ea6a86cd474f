/** `ztunnel why` against running daemons: what it says is what happens. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { WhyReport } from "../../src/admin/why-report.ts";
import { type LabServer, listenEcho } from "../support/lab-application.ts";
import type { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { APP_PORT, startTwoNodes } from "../support/two-nodes.ts";
import { waitUntil } from "../support/wait-until.ts";

const MAIN = join(import.meta.dirname, "../../dist/main.js");
const CLIENT = "spiffe://cluster.local/ns/default/sa/client";

describe("ztunnel why", { skip: requireNetns("iptables"), timeout: 170_000 }, () => {
  let lab: MeshLab;
  let servers: LabServer[];

  before(async () => {
    lab = await startTwoNodes();
    servers = (["server", "guarded", "outside"] as const).map((name) =>
      listenEcho(lab.host(name), APP_PORT),
    );
  });
  after(async () => {
    for (const server of servers ?? []) server.close();
    await lab?.close();
  });

  /** Words of the command, run where the admin port of the node's daemon is. */
  function why(node: string, ...words: string[]): string {
    return lab.net.exec(lab.node(node).host, process.execPath, MAIN, "why", ...words).trimEnd();
  }

  test("a service's host name leads through a tunnel to its endpoint, and the connection is made", async () => {
    const words = ["default/client", "echo.default.svc.cluster.local", "--connect"];
    const report = JSON.parse(why("node-a", ...words, "--output", "json")) as WhyReport;
    const { source, destination, route, judgement, certificate, connect } = report;
    assert.deepEqual(source, {
      address: "10.66.0.11",
      workload: "default/client",
      node: "node-a",
      enrolled: "Up",
    });
    assert.deepEqual(destination, {
      address: "10.66.1.1:80",
      name: "echo.default.svc.cluster.local",
    });
    assert.deepEqual(route, {
      kind: "hbone",
      reason: "workload server speaks HBONE",
      remote: "10.66.0.21:15008",
      authority: "10.66.0.21:8080",
      expected: ["spiffe://cluster.local/ns/default/sa/server"],
      workload: "default/server",
      service: "echo.default.svc.cluster.local",
    });
    assert.deepEqual(
      [judgement?.verdict, judgement?.node, judgement?.identity],
      ["allow", "node-b", CLIENT],
    );
    assert.deepEqual([certificate?.identity, certificate?.state], [CLIENT, "Available"]);
    assert.equal(connect?.state, "open");
    // The connection is the one that the access log knows by that address.
    await waitUntil(
      () =>
        lab.node("node-a").lines.some((line) => line.includes(`"src.addr":"${connect?.source}"`)),
      "no access line of the connection",
    );
  });

  test("a denial names what the nearest rule asks for, and is what the connection meets", () => {
    const text = why("node-a", "default/client", "default/guarded:8080", "--connect");
    assert.match(
      text,
      /^policies +1 for default\/guarded, judged on node node-b for spiffe:\S+\/client$/m,
    );
    assert.match(
      text,
      /^ +default\/friends \(allow\): no match; nearest is rule 1: source principal cluster.local\/ns\/default\/sa\/client is not cluster.local\/ns\/default\/sa\/friend$/m,
    );
    assert.match(text, /^verdict +denied: allow policies exist, but none allowed$/m);
    assert.match(
      text,
      /^connect +taken, then ended with EOF after \d+ ms; .*src.addr=10.66.0.11:/m,
    );
  });

  test("an allowance names the rule that matches", () => {
    const text = why("node-b", "default/friend", "default/guarded:8080");
    assert.match(text, /^source +not of this daemon; the one on node node-a knows/m);
    assert.match(text, /^ +default\/friends \(allow\): rule 1 matches$/m);
    assert.match(text, /^verdict +allowed$/m);
  });

  test("who is outside the mesh comes without an identity", () => {
    const text = why("node-b", "10.66.0.33", "default/guarded:8080");
    assert.match(text, /^route +plain TCP to 10.66.0.22:8080, as the network takes it$/m);
    assert.match(text, /^certificate +none is shown$/m);
    assert.match(text, /^verdict +denied: allow policies exist, but none allowed$/m);
  });

  test("a pod's own address is not captured, and the connection is made", async (t) => {
    const own = listenEcho(lab.host("client"), APP_PORT);
    const text = why("node-a", "default/client", `default/client:${APP_PORT}`, "--connect");
    t.after(() => own.close());
    await waitUntil(() => own.peers.length > 0, "nobody came");
    assert.match(text, /^route +to 10.66.0.11:8080 on the pod's own loopback$/m);
    assert.match(text, /^verdict +goes through$/m);
    assert.match(text, /^connect +open after \d+ ms$/m);
    assert.match(own.peers.join(), /^10\.66\.0\.11:\d+$/);
    const isLogged = (line: string): boolean => line.includes(`"src.addr":"${own.peers[0]}"`);
    assert.deepEqual(lab.node("node-a").lines.filter(isLogged), []);
  });

  test("what the mesh does not know is reached as plain TCP", () => {
    const text = why("node-a", "default/client", "10.66.0.33:8080");
    assert.match(text, /^ +because the mesh does not know 10.66.0.33$/m);
    assert.match(text, /^verdict +goes through$/m);
  });

  test("questions that make no sense are answered by what is wrong with them", () => {
    for (const [words, message] of [
      [["default/nobody", "10.66.0.33:80"], "the mesh knows no workload default/nobody"],
      [["10.66.0.33", "10.66.0.21:80", "--connect"], "can't connect from 10.66.0.33: it is no pod"],
      [["default/client", "default/client"], "default/client needs a port"],
      [
        ["default/client", "10.66.0.21:80", "--admin", "localhost:9"],
        "nobody listens, is it running?",
      ],
    ] as const) {
      assert.throws(() => why("node-a", ...words), { message: new RegExp(message) });
    }
  });
});
