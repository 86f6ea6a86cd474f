import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { IpAddress } from "../../src/mesh/ip-address.ts";
import type { FindAddress } from "../../src/proxy/socks5-handshake.ts";
import { quiet } from "../support/memory-engine.ts";
import type { MemorySocket } from "../support/memory-socket.ts";
import { type Lab, type LabOptions, makeLab } from "./lab.ts";

const GREETING = [5, 1, 0];
const WELCOME = [5, 0];
const CONNECTED = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
const NOT_SUPPORTED = [5, 7, 0, 1, 0, 0, 0, 0, 0, 0];
const FAILED = [5, 1, 0, 1, 0, 0, 0, 0, 0, 0];
const PORT_8080 = [0x1f, 0x90];
/** 10.77.0.21:8080, a pod of the other node. */
const SERVER = [10, 77, 0, 21, ...PORT_8080];
const TO_SERVER = [5, 1, 0, 1, ...SERVER];

test("a client that says where it wants to go is connected like a captured one", async () => {
  const { lab, socket } = dial();
  say(socket, [...GREETING, ...TO_SERVER]);
  await quiet();
  assert.deepEqual(heard(socket), [...WELCOME, ...CONNECTED]);
  socket.write("hello world");
  await quiet();
  assert.equal(socket.read(), "hello worldhello world");
  assert.deepEqual(lab.proxy("client1").connections().outbound.length, 1);
  socket.end();
  await quiet();
  const [line] = lab.a.access();
  assert.match(line ?? "", /^info\taccess\tconnection complete\tsrc\.addr=127\.0\.0\.1:\d+ /);
  assert.match(line ?? "", /dst\.addr=10\.77\.0\.21:15008 dst\.hbone_addr=10\.77\.0\.21:8080/);
  assert.match(line ?? "", /direction="outbound" bytes_sent=11 bytes_recv=22/);
  assert.equal(
    lab.clock.pendingCount,
    1,
    "only the tunnel's place in the pool waits for something",
  );
});

test("byte by byte, with other methods, and bytes behind the request before the answer", async () => {
  const { socket } = dial();
  for (const byte of [5, 3, 2, 1, 0, ...TO_SERVER]) {
    say(socket, [byte]);
    await quiet();
  }
  socket.write("early");
  await quiet();
  assert.deepEqual(heard(socket), [...WELCOME, ...CONNECTED, ...Buffer.from("earlyearly")]);
});

test("an IPv4 address may come as an IPv6 one", async () => {
  const { lab, socket } = dial();
  const mapped = [...new Array<number>(10).fill(0), 0xff, 0xff, ...SERVER];
  say(socket, [...GREETING, 5, 1, 0, 4, ...mapped]);
  socket.write("x");
  await quiet();
  assert.deepEqual(heard(socket), [...WELCOME, ...CONNECTED, ...Buffer.from("xx")]);
  assert.equal(lab.a.log.lines.length, 0);
});

test("a destination that fails is told by the end of the connection", async () => {
  const { lab, socket } = dial();
  // Nobody listens.
  say(socket, [...GREETING, 5, 1, 0, 1, 10, 77, 0, 31, 0, 1]);
  await quiet();
  assert.deepEqual(heard(socket), [...WELCOME, ...CONNECTED]);
  assert.equal(socket.readEnd, "fin");
  assert.match(
    lab.a.access().join("\n"),
    /connection complete.*dst\.addr=10\.77\.0\.31:1 .*Connection refused/s,
  );
});

describe("our own ports are no destination:", () => {
  for (const port of [15001, 15006, 15008, 15080]) {
    test(`127.0.0.1:${port}`, async () => {
      const { lab, socket } = dial();
      say(socket, [...GREETING, 5, 1, 0, 1, 127, 0, 0, 1, port >> 8, port & 0xff]);
      await quiet();
      assert.deepEqual(heard(socket), [...WELCOME, ...CONNECTED]);
      assert.equal(socket.readEnd, "fin");
      assert.match(lab.a.access().join(), /attempted recursive call to ourselves/);
    });
  }
});

describe("a client that does not keep to the rules is told once and let go:", () => {
  const cases: Record<string, [said: number[], answer: number[], reason: string]> = {
    SOCKS4: [[4, 1], NOT_SUPPORTED, "invalid version 4"],
    HTTP: [[...Buffer.from("GE")], NOT_SUPPORTED, "invalid version 71"],
    "no method": [[5, 0], NOT_SUPPORTED, "no authentication method"],
    "password only": [[5, 1, 2], NOT_SUPPORTED, "unsupported authentication methods 2"],
    "another version in the request": [
      [...GREETING, 4, 1],
      [...WELCOME, ...NOT_SUPPORTED],
      "invalid version 4",
    ],
    BIND: [[...GREETING, 5, 2], [...WELCOME, ...NOT_SUPPORTED], "unsupported command 2"],
    "UDP ASSOCIATE": [[...GREETING, 5, 3], [...WELCOME, ...NOT_SUPPORTED], "unsupported command 3"],
    "another address type": [
      [...GREETING, 5, 1, 0, 2],
      [...WELCOME, ...NOT_SUPPORTED],
      "unsupported address type 2",
    ],
  };
  for (const [title, [said, answer, reason]] of Object.entries(cases)) {
    test(title, async () => {
      const { lab, socket } = dial();
      say(socket, said);
      await quiet();
      assert.deepEqual(heard(socket), answer);
      assert.equal(socket.readEnd, "fin");
      assert.deepEqual(
        lab.a.log.lines.map(({ level, target, message }) => [level, target, message]),
        [["error", "ztunnel::proxy::socks5", `handshake error: ${reason}`]],
      );
      assert.equal(lab.clock.pendingCount, 0);
    });
  }

  test("an end in the middle", async () => {
    const { lab, socket } = dial();
    say(socket, [...GREETING, 5, 1, 0, 1, 10]);
    socket.end();
    await quiet();
    assert.deepEqual(heard(socket), [...WELCOME, ...FAILED]);
    assert.equal(lab.a.log.lines[0]?.message, "handshake error: early eof");
  });

  test("silence", async () => {
    const { lab, socket } = dial();
    say(socket, GREETING);
    await lab.clock.advance(29_999);
    assert.equal(socket.readEnd, "open");
    await lab.clock.advance(1);
    assert.equal(socket.readEnd, "fin");
    assert.equal(lab.a.log.lines[0]?.message, "handshake error: deadline has elapsed");
  });
});

describe("a host name", () => {
  const ADDRESSES = new Map([["server1.default.svc.cluster.local", "10.77.0.21" as IpAddress]]);
  const findAddress: FindAddress = async (name) => {
    if (name === "broken") throw new Error("nobody answers");
    return ADDRESSES.get(name);
  };
  const ask = (name: string | readonly number[]): number[] => [
    ...[...GREETING, 5, 1, 0, 3, name.length],
    ...Buffer.from(name),
    ...PORT_8080,
  ];

  test("is looked up", async () => {
    const { lab, socket } = dial({ findAddress });
    say(socket, ask("server1.default.svc.cluster.local"));
    socket.write("x");
    await quiet();
    assert.deepEqual(heard(socket), [...WELCOME, ...CONNECTED, ...Buffer.from("xx")]);
    assert.equal(lab.network.engine.connects.at(-1)?.remote.ip, "10.77.0.21");
  });

  test("may be an address", async () => {
    const { socket } = dial();
    say(socket, ask("10.77.0.21"));
    socket.write("x");
    await quiet();
    assert.deepEqual(heard(socket), [...WELCOME, ...CONNECTED, ...Buffer.from("xx")]);
  });

  for (const [name, code, reason] of [
    ["stranger", 4, "stranger has no address"],
    ["", 4, " has no address"],
    ["broken", 4, "broken: nobody answers"],
    [[0xff, 0xfe], 7, "the host name is no UTF-8"],
  ] as const) {
    test(`is refused where ${reason}`, async () => {
      const { lab, socket } = dial({ findAddress });
      say(socket, ask(name));
      await quiet();
      assert.deepEqual(heard(socket), [...WELCOME, 5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
      assert.equal(lab.a.log.lines[0]?.message, `handshake error: ${reason}`);
    });
  }

  test("is refused where no DNS is served", async () => {
    const { lab, socket } = dial();
    say(socket, ask("server1.default.svc.cluster.local"));
    await quiet();
    assert.deepEqual(heard(socket), [...WELCOME, ...NOT_SUPPORTED]);
    assert.equal(lab.a.log.lines[0]?.message, "handshake error: host names need the DNS proxy");
  });
});

test("a proxy that closes ends whoever is still speaking", async () => {
  const { lab, socket } = dial();
  say(socket, GREETING);
  await quiet();
  await lab.proxy("client1").close();
  assert.equal(socket.readEnd, "fin");
  assert.ok(!lab.a.log.lines.some(({ level }) => level === "error"));
});

test("without the option nobody listens", () => {
  const lab = makeLab();
  assert.throws(() => lab.pod("client1").dial("127.0.0.1:15080"), { errno: "ECONNREFUSED" });
});

function dial(options: Partial<LabOptions> = {}): {
  readonly lab: Lab;
  readonly socket: MemorySocket;
} {
  const lab = makeLab("info", { socks5: true, ...options });
  return { lab, socket: lab.pod("client1").dial("127.0.0.1:15080") };
}

function say(socket: MemorySocket, bytes: readonly number[]): void {
  socket.write(Buffer.from(bytes).toString("latin1"));
}

function heard(socket: MemorySocket): number[] {
  return [...Buffer.from(socket.read(), "latin1")];
}
