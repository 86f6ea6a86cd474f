import assert from "node:assert/strict";
import { closeSync } from "node:fs";
import { describe, test } from "node:test";
import { native } from "../../src/net/native.ts";
import { PreparedOptions, type SocketOptions } from "../../src/net/socket-options.ts";

/** As Linux numbers them. */
const SOL_SOCKET = 1;
const SOL_TCP = 6;
const SOL_IPV6 = 41;

/** Those that need no rights; the kernel keeps what it was told. */
const CASES: [options: SocketOptions, level: number, number: number, value: number][] = [
  [{ noDelay: true }, SOL_TCP, 1, 1],
  [{ userTimeoutMs: 30_000 }, SOL_TCP, 18, 30_000],
  [{ keepAlive: true }, SOL_SOCKET, 9, 1],
  [{ keepAliveIdleSeconds: 180 }, SOL_TCP, 4, 180],
  [{ keepAliveIntervalSeconds: 90 }, SOL_TCP, 5, 90],
  [{ keepAliveProbes: 9 }, SOL_TCP, 6, 9],
  [{ reusePort: true }, SOL_SOCKET, 15, 1],
  [{ reuseAddress: true }, SOL_SOCKET, 2, 1],
  [{ reuseAddress: false }, SOL_SOCKET, 2, 0],
  [{ bindAddressNoPort: true }, 0, 24, 1],
  [{ dualStack: false }, SOL_IPV6, 26, 1],
  [{ dualStack: true }, SOL_IPV6, 26, 0],
];

describe("a socket", () => {
  for (const [options, level, number, value] of CASES) {
    const [name = ""] = Object.keys(options);
    test(`has ${JSON.stringify(options)}`, () => {
      const family = name === "dualStack" ? "ipv6" : "ipv4";
      const { fd } = native.socketInNamespace({ family, type: "stream", ...options });
      assert.equal(numberOf(fd, level, number), value);
      closeSync(fd);
    });
  }

  test("that is given none has what the kernel gives", () => {
    const { fd, transparent } = native.socketInNamespace({ family: "ipv4", type: "stream" });
    assert.equal(numberOf(fd, SOL_TCP, 1), 0);
    assert.equal(transparent, false);
    closeSync(fd);
  });
});

test("options are prepared once and set on any number of sockets", () => {
  const options = new PreparedOptions({ noDelay: true, keepAlive: true, keepAliveProbes: 7 });
  for (let i = 0; i < 2; i++) {
    const fd = native.preparedSocket({ family: "ipv4", type: "stream" }, options);
    assert.equal(numberOf(fd, SOL_TCP, 1), 1);
    assert.equal(numberOf(fd, SOL_TCP, 6), 7);
    closeSync(fd);
  }
});

test("of several the one that the kernel refuses is named", () => {
  // It takes at most 127 probes and 32767 seconds.
  for (const [options, refused] of [
    [{ noDelay: true, keepAliveProbes: 128, reuseAddress: true }, "TCP_KEEPCNT"],
    [{ keepAliveIdleSeconds: 32_768, keepAliveProbes: 128 }, "TCP_KEEPIDLE"],
  ] as const) {
    const prepared = new PreparedOptions(options);
    assert.throws(() => native.preparedSocket({ family: "ipv4", type: "stream" }, prepared), {
      code: "EINVAL",
      syscall: "setsockopt",
      message: `EINVAL: invalid argument, setsockopt ${refused}`,
    });
  }
});

function numberOf(fd: number, level: number, number: number): number {
  const bytes = native.socketOption(fd, level, number);
  assert.equal(bytes.length, 4);
  return new Int32Array(Uint8Array.from(bytes).buffer)[0] ?? Number.NaN;
}
