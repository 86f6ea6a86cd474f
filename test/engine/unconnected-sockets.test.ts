import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ConnectOptions } from "../../src/engine/engine.ts";
import { UnconnectedSockets } from "../../src/engine/unconnected-sockets.ts";
import { parseIpAddress } from "../../src/mesh/ip-address.ts";
import type { SocketPlace } from "../../src/net/native.ts";
import type { PreparedOptions } from "../../src/net/socket-options.ts";

const FD = 17;
const SOURCE = parseIpAddress("10.0.0.1");
const REMOTE = parseIpAddress("10.0.0.2");
const IPV6 = parseIpAddress("fd00::1");
assert.ok(SOURCE && REMOTE && IPV6);
const CONNECT: ConnectOptions = {
  netns: { fd: 3 },
  remote: { ip: REMOTE, port: 80 },
  source: undefined,
  mark: 1337,
  timeoutMs: 1000,
  keepAlive: { idleMs: 1000, intervalMs: 1000, probes: 3, userTimeoutMs: undefined },
};

/** What sockets are made of; nothing is made. */
function recorded(): { sockets: UnconnectedSockets; made: [SocketPlace, PreparedOptions][] } {
  const made: [SocketPlace, PreparedOptions][] = [];
  const sockets = new UnconnectedSockets({
    preparedSocket(place, options) {
      made.push([place, options]);
      return FD;
    },
  });
  return { sockets, made };
}

describe("a socket for a connection", () => {
  const place = { netnsFd: 3, family: "ipv4", type: "stream" } as const;
  const cases: [name: string, more: Partial<ConnectOptions>, port: number, SocketPlace][] = [
    ["of our own", {}, 0, place],
    ["at home", { netns: undefined }, 0, { family: "ipv4", type: "stream" }],
    ["to IPv6", { remote: { ip: IPV6, port: 80 } }, 0, { ...place, family: "ipv6" }],
    ["of a client", { source: SOURCE }, 0, { ...place, bind: { ip: SOURCE, port: 0 } }],
    [
      "of a client of the other family",
      { source: IPV6 },
      40_001,
      { ...place, family: "ipv6", bind: { ip: IPV6, port: 40_001 } },
    ],
  ];
  for (const [name, more, sourcePort, expected] of cases) {
    test(`${name} is made where it belongs`, () => {
      const { sockets, made } = recorded();
      assert.equal(sockets.make({ ...CONNECT, ...more }, sourcePort), FD);
      assert.deepEqual(made[0]?.[0], expected);
    });
  }
});

test("connections of one kind share their options, others have their own", () => {
  const { sockets, made } = recorded();
  const spoofed = { ...CONNECT, source: SOURCE };
  sockets.make(CONNECT, 0);
  sockets.make({ ...CONNECT, remote: { ip: IPV6, port: 443 } }, 0);
  sockets.make(spoofed, 0);
  sockets.make(spoofed, 40_001);
  sockets.make(spoofed, 40_003);
  sockets.make({ ...CONNECT, mark: undefined }, 0);
  sockets.make({ ...CONNECT, keepAlive: undefined }, 0);
  const seen = [...new Set(made.map(([, options]) => options))];
  assert.deepEqual(
    made.map(([, options]) => seen.indexOf(options)),
    [0, 0, 1, 2, 2, 3, 4],
  );
});
