import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  closeSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
} from "node:fs";
import { connect as connectTcp, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Worker } from "node:worker_threads";
import { native } from "../../src/net/native.ts";
import { acceptConnection } from "../support/accept-connection.ts";
import { LeakCheck } from "../support/leak-check.ts";
import { originalDestination } from "../support/original-destination.ts";

const LOOPBACK = { family: "ipv4", type: "stream", bind: { ip: "127.0.0.1", port: 0 } } as const;
/** Values of linux/fcntl.h as /proc shows them. */
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), "ztunnel-native-"));
});
after(() => rmSync(folder, { recursive: true }));

describe("arguments of the wrong kind", () => {
  const socket = (more: object) => () =>
    native.socketInNamespace({ family: "ipv4", type: "stream", ...more });
  const cases: [name: string, call: () => unknown, message: string][] = [
    [
      "a mark that is text",
      socket({ mark: "1337" }),
      "mark must be an integer from 0 to 4294967295",
    ],
    ["a negative mark", socket({ mark: -1 }), "mark must be an integer from 0 to 4294967295"],
    ["a flag that is a number", socket({ reusePort: 1 }), "reusePort must be a boolean"],
    ["keep-alive that is a number", socket({ keepAlive: 9 }), "keepAlive must be a boolean"],
    [
      "an unknown transparency",
      socket({ transparent: "yes" }),
      'transparent must be "required" or "try"',
    ],
    [
      "a port that is too high",
      socket({ bind: { ip: "127.0.0.1", port: 65536 } }),
      "bind.port must be an integer from 0 to 65535",
    ],
    [
      "a bind without port",
      socket({ bind: { ip: "127.0.0.1" } }),
      "bind.port must be an integer from 0 to 65535",
    ],
    [
      "an address that is a name",
      socket({ bind: { ip: "localhost", port: 0 } }),
      "bind.ip must be an IP address",
    ],
    [
      "an address of the other family",
      socket({ bind: { ip: "::1", port: 0 } }),
      "bind.ip must be an address of the socket's family",
    ],
    [
      "a netns that is text",
      socket({ netnsFd: "3" }),
      "netnsFd must be an integer from 0 to 2147483647",
    ],
    [
      "a netns that stands for the own one",
      socket({ netnsFd: -1 }),
      "netnsFd must be an integer from 0 to 2147483647",
    ],
    [
      "a file in a netns that is none",
      () => native.openInNamespace("/dev/null", 0.5),
      "netnsFd must be an integer from 0 to 2147483647",
    ],
    [
      "a path with a null character",
      () => native.connectSeqpacket("a\0b"),
      "path must be a string without null characters",
    ],
    [
      "a file with a null character",
      () => native.openInNamespace("/dev/null\0b"),
      "path must be a string without null characters",
    ],
  ];
  for (const [name, call, message] of cases) {
    test(`${name} is a TypeError that names it and opens nothing`, async () => {
      const leaks = new LeakCheck();
      assert.throws(call, { name: "TypeError", message });
      await leaks.assertNone();
    });
  }

  test("an error thrown by a getter comes through", () => {
    const options = {
      family: "ipv4",
      type: "stream",
      get mark(): number {
        throw new RangeError("mine");
      },
    } as const;
    assert.throws(() => native.socketInNamespace(options), /^RangeError: mine$/);
  });
});

test("errors of system calls have the shape of Node's own", () => {
  const { fd } = native.socketInNamespace({ ...LOOPBACK, listenBacklog: 1 });
  const { port } = native.localAddress(fd);
  assert.throws(() => native.socketInNamespace({ ...LOOPBACK, bind: { ip: "127.0.0.1", port } }), {
    name: "Error",
    code: "EADDRINUSE",
    errno: -98,
    syscall: "bind",
    message: `EADDRINUSE: address already in use, bind 127.0.0.1 port ${port}`,
  });
  closeSync(fd);
});

test("a descriptor that is no namespace is refused and the thread stays at home", () => {
  const fd = openSync("/dev/null", "r");
  const options = { family: "ipv4", type: "stream", netnsFd: fd } as const;
  const refused = { code: "EINVAL", syscall: "setns" };
  assert.throws(() => native.socketInNamespace(options), refused);
  assert.throws(() => native.openInNamespace("/dev/null", fd), refused);
  closeSync(fd);
});

test("a file that is not there is named, one that is there is read", async () => {
  const leaks = new LeakCheck();
  assert.throws(() => native.openInNamespace(join(folder, "none")), {
    code: "ENOENT",
    syscall: "open",
    message: `ENOENT: no such file or directory, open ${join(folder, "none")}`,
  });
  const fd = native.openInNamespace("/proc/thread-self/net/snmp");
  assert.match(readFileSync(fd, "utf8"), /^Udp: InDatagrams /m);
  const info = readFileSync(`/proc/self/fdinfo/${fd}`, "utf8");
  const flags = Number.parseInt(/^flags:\s+(\d+)$/m.exec(info)?.[1] ?? "", 8);
  assert.ok(flags & O_CLOEXEC, info);
  closeSync(fd);
  await leaks.assertNone();
});

test("an accepted connection tells both addresses", async () => {
  const leaks = new LeakCheck();
  const listener = native.socketInNamespace({ ...LOOPBACK, listenBacklog: 8 });
  assert.equal(listener.transparent, false);
  assert.equal(acceptConnection(listener.fd), undefined);
  const local = native.localAddress(listener.fd);
  const client = await connected(local.port);
  await readable(listener.fd);
  const accepted = acceptConnection(listener.fd);
  assert.ok(accepted);
  assert.deepEqual(accepted.local, local);
  assert.deepEqual(accepted.peer, { ip: "127.0.0.1", port: client.localPort });
  assert.deepEqual(native.peerAddress(accepted.fd), accepted.peer);
  assert.throws(() => native.peerAddress(listener.fd), { code: "ENOTCONN" });
  assertBornQuiet(accepted.fd);
  assert.equal(acceptConnection(listener.fd), undefined);
  client.destroy();
  closeSync(accepted.fd);
  closeSync(listener.fd);
  await leaks.assertNone();
});

test("a dual-stack listener gives IPv4 peers as IPv4", async () => {
  const { fd } = native.socketInNamespace({
    family: "ipv6",
    type: "stream",
    dualStack: true,
    bind: { ip: "::", port: 0 },
    listenBacklog: 8,
  });
  assert.equal(native.localAddress(fd).ip, "::");
  const client = await connected(native.localAddress(fd).port);
  await readable(fd);
  const accepted = acceptConnection(fd);
  assert.equal(accepted?.peer.ip, "127.0.0.1");
  assert.equal(accepted.local.ip, "127.0.0.1");
  client.destroy();
  closeSync(accepted.fd);
  closeSync(fd);
});

test("a listener that is not dual-stack leaves IPv4 to others", () => {
  const ipv6 = native.socketInNamespace({
    family: "ipv6",
    type: "stream",
    dualStack: false,
    bind: { ip: "::", port: 0 },
    listenBacklog: 1,
  });
  // An address of this test's own: beside it, others may hold the port on 127.0.0.1.
  const bind = { ip: "127.9.9.9", port: native.localAddress(ipv6.fd).port };
  const ipv4 = native.socketInNamespace({ ...LOOPBACK, bind, listenBacklog: 1 });
  closeSync(ipv4.fd);
  closeSync(ipv6.fd);
});

test("what was never redirected has no original destination of another place", async () => {
  const { fd } = native.socketInNamespace({ ...LOOPBACK, listenBacklog: 8 });
  const client = await connected(native.localAddress(fd).port);
  await readable(fd);
  const accepted = acceptConnection(fd);
  assert.ok(accepted);
  // Where the machine tracks connections, the kernel answers with the address that was dialled.
  const original = originalDestination(native, accepted.fd);
  if (original !== undefined) assert.deepEqual(original, accepted.local);
  client.destroy();
  closeSync(accepted.fd);
  closeSync(fd);

  const udp = native.socketInNamespace({ ...LOOPBACK, type: "dgram" });
  assert.equal(originalDestination(native, udp.fd), undefined);
  closeSync(udp.fd);
  assert.throws(() => originalDestination(native, udp.fd), { code: "EBADF" });
});

test("options of a listener are inherited by what it accepts", async () => {
  const { fd } = native.socketInNamespace({
    ...LOOPBACK,
    listenBacklog: 8,
    noDelay: true,
    userTimeoutMs: 30_000,
    keepAlive: true,
    keepAliveIdleSeconds: 180,
    keepAliveIntervalSeconds: 180,
    keepAliveProbes: 9,
  });
  const client = await connected(native.localAddress(fd).port);
  await readable(fd);
  const accepted = acceptConnection(fd);
  assert.ok(accepted);
  const sockets = execFileSync("ss", ["-tnoH", `sport = ${accepted.local.port}`], {
    encoding: "utf8",
    // Without the sanitizers that this process may run with: ss has leaks of its own.
    env: { PATH: process.env["PATH"] },
  });
  assert.match(sockets, /timer:\(keepalive,[23]min/);
  client.destroy();
  closeSync(accepted.fd);
  closeSync(fd);
});

test("a value that the kernel refuses is an error that names the option", async () => {
  const leaks = new LeakCheck();
  // The kernel takes at most 127 probes, so this proves that the number arrives.
  assert.throws(() => native.socketInNamespace({ ...LOOPBACK, keepAliveProbes: 128 }), {
    code: "EINVAL",
    message: "EINVAL: invalid argument, setsockopt TCP_KEEPCNT",
  });
  await leaks.assertNone();
});

describe("seqpacket", () => {
  let listener: number;
  let left: number;
  let right: number;
  const path = (): string => join(folder, "zds.sock");

  before(() => {
    listener = native.listenSeqpacket(path(), 4);
    assert.equal(native.accept(listener), undefined);
    left = native.connectSeqpacket(path());
    const accepted = native.accept(listener);
    assert.ok(accepted !== undefined);
    right = accepted;
    for (const fd of [listener, left, right]) assertBornQuiet(fd);
  });
  after(() => {
    closeSync(listener);
    closeSync(right);
  });

  test("nothing there is undefined", () => {
    assert.equal(native.receivePacket(right, 1024), undefined);
  });

  test("packets keep their borders", () => {
    native.sendPacket(left, Uint8Array.of(1, 2));
    native.sendPacket(left, Uint8Array.of(3).subarray(0));
    const first = native.receivePacket(right, 1024);
    assert.deepEqual([...(first?.data ?? [])], [1, 2]);
    assert.deepEqual(first?.fds, []);
    assert.equal(first?.truncated, false);
    assert.deepEqual([...(native.receivePacket(right, 1024)?.data ?? [])], [3]);
  });

  test("only the view of a larger buffer is sent", () => {
    native.sendPacket(left, Uint8Array.of(9, 1, 2, 9).subarray(1, 3));
    assert.deepEqual([...(native.receivePacket(right, 1024)?.data ?? [])], [1, 2]);
  });

  for (const count of [1, 2]) {
    test(`${count} descriptors arrive as duplicates, close-on-exec`, async () => {
      const leaks = new LeakCheck();
      const sent = openSync("/proc/self/ns/net", "r");
      native.sendPacket(left, Uint8Array.of(7), ...Array<number>(count).fill(sent));
      const packet = native.receivePacket(right, 1024);
      assert.equal(packet?.truncated, false);
      assert.equal(packet.fds.length, count);
      for (const fd of packet.fds) {
        assert.notEqual(fd, sent);
        assert.equal(fstatSync(fd).ino, fstatSync(sent).ino);
        assert.ok(flagsOf(fd) & O_CLOEXEC);
        closeSync(fd);
      }
      closeSync(sent);
      await leaks.assertNone();
    });
  }

  test("a third descriptor does not fit: truncated, and it is closed", async () => {
    const leaks = new LeakCheck();
    native.sendPacket(left, Uint8Array.of(7), left, left, left);
    const packet = native.receivePacket(right, 1024);
    assert.equal(packet?.truncated, true);
    assert.equal(packet.fds.length, 2);
    for (const fd of packet.fds) closeSync(fd);
    await leaks.assertNone();
  });

  test("a packet that is too long is truncated, and the next one is whole", () => {
    native.sendPacket(left, new Uint8Array(1025));
    native.sendPacket(left, new Uint8Array(1024));
    const long = native.receivePacket(right, 1024);
    assert.equal(long?.truncated, true);
    assert.equal(long.data.length, 1024);
    assert.equal(native.receivePacket(right, 1024)?.truncated, false);
  });

  test("a peer that does not read makes send fail instead of wait", () => {
    assert.throws(
      () => {
        for (let i = 0; i < 10_000; i++) native.sendPacket(left, new Uint8Array(1024));
      },
      { code: "EAGAIN", syscall: "sendmsg" },
    );
    while (native.receivePacket(right, 1024) !== undefined);
  });

  test("the end of the conversation is an empty packet, and sending fails", () => {
    closeSync(left);
    assert.equal(native.receivePacket(right, 1024)?.data.length, 0);
    assert.throws(() => native.sendPacket(right, Uint8Array.of(1)), { code: "EPIPE" });
  });

  test("a path that is taken, absent or too long is an error that names it", () => {
    assert.throws(() => native.listenSeqpacket(path(), 1), {
      code: "EADDRINUSE",
      message: `EADDRINUSE: address already in use, bind ${path()}`,
    });
    assert.throws(() => native.connectSeqpacket("/nowhere"), { code: "ENOENT" });
    assert.throws(() => native.connectSeqpacket("x".repeat(108)), { code: "ENAMETOOLONG" });
  });
});

describe("watchReadable", () => {
  test("calls back while something is unread, and stops when closed", async () => {
    const leaks = new LeakCheck();
    const [left, right] = seqpacketPair();
    let calls = 0;
    let enough: () => void;
    const thrice = new Promise<void>((resolve) => {
      enough = resolve;
    });
    const first = native.watchReadable(right, () => {
      if (++calls === 3) enough();
    });
    native.sendPacket(left, Uint8Array.of(1));
    await thrice;
    first.close();
    first.close();
    const callsThen = calls;
    await readable(right);
    assert.equal(calls, callsThen);
    closeSync(left);
    closeSync(right);
    await leaks.assertNone();
  });

  test("one watch may follow another at once, and two at a time are refused", () => {
    const [left, right] = seqpacketPair();
    const first = native.watchReadable(right, () => {});
    assert.throws(() => native.watchReadable(right, () => {}), { code: "EEXIST" });
    first.close();
    native.watchReadable(right, () => {}).close();
    closeSync(left);
    closeSync(right);
  });

  test("what can't be watched is an error", () => {
    const file = openSync("/proc/self/status", "r");
    assert.throws(() => native.watchReadable(file, () => {}), {
      code: "EPERM",
      message: `EPERM: operation not permitted, uv_poll_init fd ${file}`,
    });
    closeSync(file);
    assert.throws(() => native.watchReadable(file, () => {}), { code: "EBADF" });
  });

  test("close does nothing to a later watch of the same descriptor", async () => {
    const [left, right] = seqpacketPair();
    const first = native.watchReadable(right, () => {});
    first.close();
    const calls = new Promise<void>((resolve) => {
      const second = native.watchReadable(right, () => {
        second.close();
        resolve();
      });
    });
    first.close();
    native.sendPacket(left, Uint8Array.of(1));
    await calls;
    closeSync(left);
    closeSync(right);
  });
});

describe("in a worker thread", () => {
  /** @param script has `native`, `workerData` and `parentPort`. */
  const workerOn = (fd: number, script: string): Worker => {
    const url = JSON.stringify(import.meta.resolve("../../src/net/native.ts"));
    return new Worker(
      `const { workerData, parentPort } = require("node:worker_threads");
      import(${url}).then(({ native }) => { ${script} });`,
      { eval: true, workerData: fd },
    );
  };

  test("packets are echoed by a watch of that thread", async () => {
    const [left, right] = seqpacketPair();
    const worker = workerOn(
      right,
      `const watch = native.watchReadable(workerData, () => {
        const { data } = native.receivePacket(workerData, 1024);
        if (data.length === 0) return watch.close();
        native.sendPacket(workerData, data);
      });
      parentPort.postMessage("watching");`,
    );
    await new Promise((resolve) => worker.once("message", resolve));
    for (let i = 0; i < 100; i++) {
      native.sendPacket(left, Uint8Array.of(i));
      await readable(left);
      assert.equal(native.receivePacket(left, 1024)?.data[0], i);
    }
    closeSync(left);
    assert.equal(await exitCode(worker), 0);
    closeSync(right);
  });

  test("a watch that is still open ends with its thread", async () => {
    const leaks = new LeakCheck();
    const [left, right] = seqpacketPair();
    const worker = workerOn(
      right,
      'native.watchReadable(workerData, () => {}); parentPort.postMessage("watching");',
    );
    await new Promise((resolve) => worker.once("message", resolve));
    await worker.terminate();
    closeSync(left);
    closeSync(right);
    await leaks.assertNone();
  });

  test("an error thrown by the callback is the thread's uncaught exception", async () => {
    const [left, right] = seqpacketPair();
    native.sendPacket(left, Uint8Array.of(1));
    const worker = workerOn(
      right,
      'native.watchReadable(workerData, () => { throw new RangeError("mine"); });',
    );
    const error = await new Promise((resolve) => worker.once("error", resolve));
    assert.equal(String(error), "RangeError: mine");
    closeSync(left);
    closeSync(right);
  });
});

test("memory that nobody needs is given back, and what it held is found again", () => {
  const before = residentFileKilobytes();
  native.releaseResidentMemory();
  const after = residentFileKilobytes();
  assert.ok(after < before / 2, `${before} kB, then ${after} kB`);
  const digest = createHash("sha256").update("abc").digest("hex");
  assert.match(digest, /^ba7816bf[0-9a-f]*f20015ad$/);
});

test("a process that forbids it leaves no core behind", () => {
  const directory = mkdtempSync(join(tmpdir(), "core-"));
  const script = `import { native } from ${JSON.stringify(import.meta.resolve("../../src/net/native.ts"))};
    native.forbidMemoryDumps();
    process.abort();`;
  // `sh` runs no start-up file, whose programs would be loaded with the sanitizers, too.
  const { status, stderr } = spawnSync(
    "sh",
    [
      "-c",
      'ulimit -c unlimited; "$0" --input-type=module -e "$1"; exit $?',
      process.execPath,
      script,
    ],
    { cwd: directory, encoding: "utf8" },
  );
  const left = readdirSync(directory);
  rmSync(directory, { recursive: true });
  assert.equal(status, 134, stderr);
  assert.deepEqual(left, []);
  assert.doesNotMatch(stderr, /core dumped/);
});

test("a thousand rounds leave nothing open", async () => {
  const leaks = new LeakCheck();
  const taken = native.socketInNamespace({ ...LOOPBACK, listenBacklog: 1 });
  const bind = native.localAddress(taken.fd);
  for (let i = 0; i < 1000; i++) {
    assert.throws(() => native.socketInNamespace({ ...LOOPBACK, bind }), { code: "EADDRINUSE" });
    closeSync(native.socketInNamespace({ ...LOOPBACK, listenBacklog: 1 }).fd);
    const [left, right] = seqpacketPair();
    const watch = native.watchReadable(right, () => {});
    native.sendPacket(left, Uint8Array.of(1), left);
    for (const fd of native.receivePacket(right, 1024)?.fds ?? []) closeSync(fd);
    watch.close();
    closeSync(left);
    closeSync(right);
  }
  closeSync(taken.fd);
  await leaks.assertNone();
});

/** Two connected ends. */
function seqpacketPair(): [left: number, right: number] {
  const path = join(folder, "pair.sock");
  const listener = native.listenSeqpacket(path, 1);
  const left = native.connectSeqpacket(path);
  const right = native.accept(listener);
  closeSync(listener);
  rmSync(path);
  assert.ok(right !== undefined);
  return [left, right];
}

function connected(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    // A test that fails half-way must not keep the process running.
    const socket = connectTcp({ host: "127.0.0.1", port }).unref();
    socket.once("connect", () => resolve(socket)).once("error", reject);
  });
}

function readable(fd: number): Promise<void> {
  return new Promise((resolve) => {
    const watch = native.watchReadable(fd, () => {
      watch.close();
      resolve();
    });
  });
}

function exitCode(worker: Worker): Promise<number> {
  return new Promise((resolve, reject) => {
    worker.once("exit", resolve).once("error", reject);
  });
}

/** Pages of files that are mapped and present: program text, mostly. */
function residentFileKilobytes(): number {
  return Number(/^RssFile:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1]);
}

function flagsOf(fd: number): number {
  const line = /^flags:\s+(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"));
  return Number.parseInt(line?.[1] ?? "", 8);
}

function assertBornQuiet(fd: number): void {
  assert.equal(flagsOf(fd) & (O_CLOEXEC | O_NONBLOCK), O_CLOEXEC | O_NONBLOCK);
}
