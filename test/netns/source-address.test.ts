/** Whose address the server's application sees. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type LabServer, listenEcho } from "../support/lab-application.ts";
import type { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import {
  ADDRESS,
  APP_PORT,
  ECHO_VIP,
  echoOnce,
  IPV6_ADDRESS,
  startTwoNodes,
} from "../support/two-nodes.ts";

interface Way {
  readonly name: string;
  readonly from: string;
  readonly to: string;
  readonly port: number;
  readonly seen: string;
  /** With `ENABLE_ORIG_SRC=false`. */
  readonly seenWithout: string;
}

const WAYS: readonly Way[] = [
  {
    name: "HBONE",
    from: "client",
    to: ADDRESS.server,
    port: APP_PORT,
    seen: ADDRESS.client,
    seenWithout: ADDRESS.server,
  },
  {
    name: "HBONE to a service address",
    from: "client",
    to: ECHO_VIP,
    port: 80,
    seen: ADDRESS.client,
    seenWithout: ADDRESS.server,
  },
  {
    name: "HBONE over IPv6",
    from: "client",
    to: IPV6_ADDRESS.server,
    port: APP_PORT,
    seen: IPV6_ADDRESS.client,
    seenWithout: IPV6_ADDRESS.server,
  },
  {
    name: "plaintext",
    from: "outside",
    to: ADDRESS.server,
    port: APP_PORT,
    seen: ADDRESS.outside,
    seenWithout: ADDRESS.server,
  },
];

for (const original of [true, false]) {
  const environment: Record<string, string> = original ? {} : { ENABLE_ORIG_SRC: "false" };
  describe(`source address, ${original ? "as it is by default" : "not kept"}`, {
    skip: requireNetns("iptables"),
  }, () => {
    let lab: MeshLab;
    let echo: LabServer;

    before(async () => {
      lab = await startTwoNodes({ environment });
      echo = listenEcho(lab.host("server"), APP_PORT);
    });
    after(async () => {
      echo?.close();
      await lab?.close();
    });

    for (const { name, from, to, port, seen, seenWithout } of WAYS) {
      const expected = original ? seen : seenWithout;
      test(`${name}: the application sees ${expected}`, { timeout: 90_000 }, async () => {
        await echoOnce(lab, from, to, port);
        const peer = echo.peers.at(-1) ?? "";
        assert.equal(peer.slice(0, peer.lastIndexOf(":")), expected);
      });
    }
  });
}
