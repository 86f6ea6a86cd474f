/**
 * What a socket for an outgoing connection costs until connect(): made in a namespace, given its options,
 * bound to a client's address at the server's side; and closed. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN.
 */
import { closeSync } from "node:fs";
import type { ConnectOptions } from "../../src/engine/engine.ts";
import { UnconnectedSockets } from "../../src/engine/unconnected-sockets.ts";
import { parseIpAddress } from "../../src/mesh/ip-address.ts";
import { native } from "../../src/net/native.ts";
import { ownNetns } from "../../src/net/netns.ts";
import { invariant } from "../../src/runtime/invariant.ts";
import { report } from "../measure.ts";
import { timeCases } from "../timed-cases.ts";

const CLIENT = parseIpAddress("192.0.2.7");
const CLIENT_V6 = parseIpAddress("2001:db8:1:2::77");
const SERVER = parseIpAddress("192.0.2.8");
invariant(CLIENT && CLIENT_V6 && SERVER, "documentation has addresses");

const sockets = new UnconnectedSockets(native);
const netns = ownNetns();
const ours: ConnectOptions = {
  netns: undefined,
  remote: { ip: SERVER, port: 80 },
  source: undefined,
  mark: 1337,
  timeoutMs: 10_000,
  keepAlive: { idleMs: 180_000, intervalMs: 180_000, probes: 9, userTimeoutMs: undefined },
};
const clients: ConnectOptions = { ...ours, netns, source: CLIENT };
try {
  report(
    await timeCases({
      "our own, 6 options": () => closeSync(sockets.make(ours, 0)),
      "a client's in its namespace, 9 options": () => closeSync(sockets.make(clients, 0)),
      "the same with IPv6": () => closeSync(sockets.make({ ...clients, source: CLIENT_V6 }, 0)),
    }),
  );
} finally {
  netns.close();
}
