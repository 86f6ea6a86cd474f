import assert from "node:assert/strict";
import { closeSync, openSync } from "node:fs";
import { constants } from "node:os";
import { describe, test } from "node:test";
import { encodeSockaddr } from "../../src/net/sockaddr.ts";
import { NOT_ENTERED, systemCallError, systemCalls } from "../../src/net/system-calls.ts";
import { LeakCheck } from "../support/leak-check.ts";

const { EBADF, EINVAL, ENOENT, ENOTSOCK, EPERM } = constants.errno;
const AF_INET = 2;
const SOCK_STREAM = 1;
const INTEGER = "must be an integer from -2147483648 to 2147483647";

/** Past what TypeScript lets through. */
const call = (name: keyof typeof systemCalls, ...values: unknown[]): unknown =>
  (systemCalls[name] as (...given: unknown[]) => unknown)(...values);

describe("an argument that is", () => {
  const cases: [name: string, call: () => unknown, message: string][] = [
    ["missing", () => call("accept"), `the first argument ${INTEGER}`],
    ["text", () => call("accept", "3"), `the first argument ${INTEGER}`],
    ["NaN", () => call("listen", 0, Number.NaN), `the second argument ${INTEGER}`],
    ["a fraction", () => call("listen", 0, 0.5), `the second argument ${INTEGER}`],
    ["too large", () => call("option", 0, 0, 2 ** 31), `the third argument ${INTEGER}`],
    ["too small", () => call("socketIn", -1, 2, 1, -(2 ** 32)), `the fourth argument ${INTEGER}`],
    ["no bytes", () => call("bind", 0, "text"), "the second argument must be a Uint8Array"],
    [
      "of another array",
      () => call("setOptions", 0, new Int32Array(3)),
      "the second argument must be a Uint8Array",
    ],
    ["a path as text", () => call("openIn", -1, "/"), "the second argument must be a Uint8Array"],
  ];
  for (const [name, run, message] of cases) {
    test(`${name} is a TypeError that names it, and nothing is opened`, async () => {
      const leaks = new LeakCheck();
      assert.throws(run, { name: "TypeError", code: "ERR_INVALID_ARG_TYPE", message });
      await leaks.assertNone();
    });
  }
});

describe("bytes that", () => {
  const nothing = new Uint8Array();
  for (const [name, answer] of [
    ["are no path", () => systemCalls.openIn(-1, nothing)],
    ["are a path without an end", () => systemCalls.openIn(-1, Buffer.from("/dev/null"))],
    ["have no room for a pair", () => systemCalls.socketPair(new Uint8Array(7))],
    ["have no room for descriptors", () => systemCalls.receivePacket(0, nothing, nothing)],
    ["are more descriptors than fit", () => systemCalls.sendPacket(0, nothing, new Uint8Array(20))],
  ] as const) {
    test(`${name} are refused`, async () => {
      const leaks = new LeakCheck();
      assert.equal(answer(), -EINVAL);
      await leaks.assertNone();
    });
  }

  test("end within an option are no option", () => {
    const fd = systemCalls.socketIn(-1, AF_INET, SOCK_STREAM, 0);
    assert.equal(systemCalls.setOptions(fd, new Uint8Array(11).fill(0xff)), 0);
    closeSync(fd);
  });

  test("are too few for an answer get what fits", () => {
    const fd = systemCalls.socketIn(-1, AF_INET, SOCK_STREAM, 0);
    const bytes = new Uint8Array(8).fill(0xee);
    assert.equal(systemCalls.bind(fd, encodeSockaddr("127.0.0.1", 0) ?? nothing), 0);
    assert.equal(systemCalls.socketName(fd, bytes.subarray(2, 4)), 16);
    assert.deepEqual([...bytes], [0xee, 0xee, AF_INET, 0, 0xee, 0xee, 0xee, 0xee]);
    closeSync(fd);
  });
});

test("what is no descriptor of the kind is a negative errno", () => {
  const file = openSync("/dev/null", "r");
  const bytes = new Uint8Array(28);
  assert.equal(systemCalls.accept(-1), -EBADF);
  assert.equal(systemCalls.accept(file), -ENOTSOCK);
  assert.equal(systemCalls.listen(file, 1), -ENOTSOCK);
  assert.equal(systemCalls.peerName(file, bytes), -ENOTSOCK);
  assert.equal(systemCalls.option(file, 1, 3, bytes), -ENOTSOCK);
  assert.equal(systemCalls.sendPacket(file, bytes, new Uint8Array()), -ENOTSOCK);
  assert.equal(systemCalls.endWatch(file), -ENOENT);
  assert.equal(call("watchReadable", file), -EINVAL);
  assert.equal(
    systemCalls.watchReadable(file, () => {}),
    -EPERM,
  );
  assert.equal(systemCalls.socketIn(file, AF_INET, SOCK_STREAM, 0), -EINVAL - NOT_ENTERED);
  closeSync(file);
});

describe("an error", () => {
  test("names what the call was about, and what is needed where rights are missing", () => {
    const subject = { syscall: "bind", detail: "::1 port 80", capability: "CAP_NET_BIND_SERVICE" };
    const text = "permission denied, bind ::1 port 80 (needs CAP_NET_BIND_SERVICE)";
    const { message, ...rest } = systemCallError(-constants.errno.EACCES, subject);
    assert.equal(message, `EACCES: ${text}`);
    assert.deepEqual(rest, { errno: -13, code: "EACCES", syscall: "bind" });
  });

  test("of another kind needs no capability", () => {
    const { message } = systemCallError(-EBADF, { syscall: "bpf", capability: "CAP_BPF" });
    assert.equal(message, "EBADF: bad file descriptor, bpf");
  });

  test("that Node has no name for is told by its number", () => {
    const { code, message } = systemCallError(-524, { syscall: "setsockopt", detail: "SO_MARK" });
    assert.equal(code, "Unknown system error -524");
    assert.equal(
      message,
      "Unknown system error -524: Unknown system error -524, setsockopt SO_MARK",
    );
  });
});
