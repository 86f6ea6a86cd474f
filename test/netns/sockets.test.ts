import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, readFileSync, readlinkSync, readSync } from "node:fs";
import { Socket } from "node:net";
import { after, afterEach, before, describe, test } from "node:test";
import { type NativeSocketOptions, native } from "../../src/net/native.ts";
import { Netns } from "../../src/net/netns.ts";
import { checkSharedModePrivileges } from "../../src/net/privileges.ts";
import { type AcceptedConnection, acceptConnection } from "../support/accept-connection.ts";
import { LeakCheck } from "../support/leak-check.ts";
import { type LabHost, NetnsLab, requireNetns } from "../support/netns-lab.ts";
import { originalDestination } from "../support/original-destination.ts";

const MARK = 1337;
const FOREIGN = { ipv4: "192.0.2.7", ipv6: "2001:db8::7" };
const SERVICE = { ipv4: "203.0.113.5", ipv6: "2001:db8:1::5" };

/** A peer to connect to. */
interface HostPort {
  readonly ip: string;
  readonly port: number;
}

describe("sockets in namespaces", {
  skip: requireNetns("iptables", "ip6tables"),
  timeout: 150_000,
}, () => {
  let lab: NetnsLab;
  let client: LabHost;
  let server: LabHost;
  let inClient: Netns;
  let inServer: Netns;
  let leaks: LeakCheck;
  /** Run after each test, so that one that fails leaves nothing that keeps the process running. */
  const cleanups: (() => void)[] = [];
  afterEach(() => {
    for (const cleanUp of cleanups.splice(0)) cleanUp();
  });

  before(() => {
    leaks = new LeakCheck();
    lab = new NetnsLab();
    client = lab.addHost("client", {
      ipv4: "10.1.0.1/24",
      ipv6: "fd01::1/64",
      routes: ["default via 10.1.0.2", "default via fd01::2"],
    });
    server = lab.addHost("server", {
      ipv4: "10.1.0.2/24",
      ipv6: "fd01::2/64",
      routes: [`${FOREIGN.ipv4} via 10.1.0.1`, `${FOREIGN.ipv6} via fd01::1`],
    });
    inClient = Netns.open(client.path);
    inServer = Netns.open(server.path);
  });
  after(async () => {
    inClient.close();
    inServer.close();
    lab.close();
    await leaks.assertNone();
  });

  const make = (options: NativeSocketOptions): { fd: number; transparent: boolean } => {
    const made = native.socketInNamespace(options);
    cleanups.push(() => closeSync(made.fd));
    return made;
  };
  const listen = (more: Partial<NativeSocketOptions> = {}): number =>
    make({
      netnsFd: inServer.fd,
      family: "ipv6",
      type: "stream",
      dualStack: true,
      bind: { ip: "::", port: 0 },
      listenBacklog: 128,
      ...more,
    }).fd;
  /** Takes the descriptor. */
  const connected = (fd: number, to: HostPort): Promise<Socket> =>
    new Promise((resolve, reject) => {
      const socket = new Socket({ fd, allowHalfOpen: true });
      cleanups.push(() => socket.destroy());
      socket.once("connect", () => resolve(socket)).once("error", reject);
      socket.connect(to.port, to.ip);
    });
  const connect = async (to: HostPort, options: Partial<NativeSocketOptions>): Promise<Socket> => {
    const family = to.ip.includes(":") ? "ipv6" : "ipv4";
    return connected(native.socketInNamespace({ family, type: "stream", ...options }).fd, to);
  };
  const fromClient = (to: HostPort, more: Partial<NativeSocketOptions> = {}): Promise<Socket> =>
    connect(to, { netnsFd: inClient.fd, ...more });
  const accept = (listener: number): Promise<AcceptedConnection> =>
    new Promise((resolve, reject) => {
      const watch = native.watchReadable(listener, () => {
        watch.close();
        const accepted = acceptConnection(listener);
        if (accepted === undefined) return reject(new Error("readable, but nothing waits"));
        cleanups.push(() => closeSync(accepted.fd));
        resolve(accepted);
      });
      cleanups.unshift(() => watch.close());
    });

  test("a file tells of the namespace it was opened in, also when that is read at home", () => {
    const home = readlinkSync("/proc/thread-self/ns/net");
    const routes = (netnsFd?: number): string => {
      const fd = native.openInNamespace("/proc/thread-self/net/route", netnsFd);
      try {
        assert.equal(readlinkSync("/proc/thread-self/ns/net"), home);
        return readFileSync(fd, "utf8");
      } finally {
        closeSync(fd);
      }
    };
    // 192.0.2.7 as the kernel writes it on this machine.
    assert.match(routes(inServer.fd), /^eth0\s+(070200C0|C0000207)\s/m);
    assert.equal(routes(), readFileSync("/proc/thread-self/net/route", "utf8"));
  });

  test("a socket belongs to the namespace it was made in, and the thread comes back", async () => {
    const home = readlinkSync("/proc/thread-self/ns/net");
    const listener = listen();
    const { port } = native.localAddress(listener);
    assert.equal(readlinkSync("/proc/thread-self/ns/net"), home);
    await assert.rejects(connect({ ip: "127.0.0.1", port }, {}), { code: "ECONNREFUSED" });

    for (const family of ["ipv4", "ipv6"] as const) {
      const to = { ip: family === "ipv4" ? server.ipv4 : (server.ipv6 ?? ""), port };
      await fromClient(to);
      const accepted = await accept(listener);
      assert.deepEqual(accepted.local, to);
      assert.equal(accepted.peer.ip, client[family]);
      // Nothing redirects here, so the kernel knows no other destination.
      const original = originalDestination(native, accepted.fd);
      if (original !== undefined) assert.deepEqual(original, to);
    }
    assert.equal(readlinkSync("/proc/thread-self/ns/net"), home);
  });

  test("the thread comes back also when the socket can't be made", () => {
    const home = readlinkSync("/proc/thread-self/ns/net");
    const options = { netnsFd: inServer.fd, family: "ipv4", type: "raw" } as const;
    assert.throws(() => native.socketInNamespace(options), { code: "EPROTONOSUPPORT" });
    assert.equal(readlinkSync("/proc/thread-self/ns/net"), home);
  });

  test("a mark is seen by the namespace's rules", async () => {
    const rule = ["OUTPUT", "-p", "tcp", "-m", "mark", "--mark", `${MARK}`, "-j", "REJECT"];
    lab.exec(client, "iptables", "-A", ...rule, "--reject-with", "tcp-reset");
    const listener = listen();
    const to = { ip: server.ipv4, port: native.localAddress(listener).port };
    await fromClient(to);
    await assert.rejects(fromClient(to, { mark: MARK }), { code: "ECONNREFUSED" });
    lab.exec(client, "iptables", "-F", "OUTPUT");
  });

  for (const family of ["ipv4", "ipv6"] as const) {
    test(`${family}: the peer sees the foreign source address of a transparent socket`, async () => {
      // Answers to the foreign address are the client's, which does not own it.
      const version = family === "ipv4" ? "-4" : "-6";
      lab.exec(client, "ip", version, "rule", "add", "iif", "eth0", "lookup", "100");
      const local = ["local", FOREIGN[family], "dev", "lo", "table", "100"];
      lab.exec(client, "ip", version, "route", "add", ...local);
      const listener = listen();
      const to = { ip: server[family] ?? "", port: native.localAddress(listener).port };
      const bind = { ip: FOREIGN[family], port: 0 };

      await assert.rejects(fromClient(to, { family, bind }), { code: "EADDRNOTAVAIL" });
      const spoofed = { family, bind, bindAddressNoPort: true, transparent: "required" } as const;
      await fromClient(to, spoofed);
      const accepted = await accept(listener);
      assert.equal(accepted.peer.ip, FOREIGN[family]);
    });

    test(`${family}: a redirected connection tells where it was going`, async () => {
      const listener = listen();
      const port = String(native.localAddress(listener).port);
      const match = ["PREROUTING", "-p", "tcp", "--dport", "80", "-j", "REDIRECT"];
      const command = family === "ipv4" ? "iptables" : "ip6tables";
      lab.exec(server, command, "-t", "nat", "-A", ...match, "--to-ports", port);
      await fromClient({ ip: SERVICE[family], port: 80 });
      const accepted = await accept(listener);
      assert.equal(accepted.local.ip, server[family]);
      assert.deepEqual(originalDestination(native, accepted.fd), { ip: SERVICE[family], port: 80 });
    });
  }

  test("transparency is reported, and trying it is no error", () => {
    const options = { netnsFd: inServer.fd, family: "ipv6", type: "stream" } as const;
    for (const transparent of ["required", "try"] as const) {
      assert.equal(make({ ...options, transparent }).transparent, true);
    }
  });

  test("two listeners share a port only when both ask for it (reuseport)", () => {
    const first = listen({ reusePort: true });
    const bind = { ip: "::", port: native.localAddress(first).port };
    listen({ reusePort: true, bind });
    assert.throws(() => listen({ bind }), { code: "EADDRINUSE", syscall: "bind" });
  });

  test("a closed listener hands its queue to the other of its port", async () => {
    const queueMigrationFd = native.loadQueueMigration();
    cleanups.push(() => closeSync(queueMigrationFd));
    const options: NativeSocketOptions = {
      netnsFd: inServer.fd,
      family: "ipv4",
      type: "stream",
      reusePort: true,
      bind: { ip: "0.0.0.0", port: 0 },
      listenBacklog: 128,
      queueMigrationFd,
    };
    const { fd: first } = native.socketInNamespace(options);
    const { port } = native.localAddress(first);
    for (let i = 0; i < 20; i++) await fromClient({ ip: server.ipv4, port });
    const second = make({ ...options, bind: { ip: "0.0.0.0", port } }).fd;
    closeSync(first);
    for (let i = 0; i < 20; i++) await accept(second);
  });

  test("late-bound ports are shared between destinations, early-bound ones run out", async () => {
    const PORT_COUNT = 10;
    // Outside of the usual range, in which a connection of before may still have its port.
    const range = `net.ipv4.ip_local_port_range=20000 ${20000 + PORT_COUNT - 1}`;
    lab.exec(client, "sysctl", "-q", "-w", range);
    const bind = { ip: client.ipv4, port: 0 };
    for (let port = 8000; port < 8003; port++) listen({ bind: { ip: "::", port } });

    const early = { netnsFd: inClient.fd, family: "ipv4", type: "stream", bind } as const;
    const fds = Array.from({ length: PORT_COUNT }, () => native.socketInNamespace(early).fd);
    assert.throws(() => native.socketInNamespace(early), { code: "EADDRINUSE" });
    for (const fd of fds) closeSync(fd);

    const sockets: Socket[] = [];
    for (let port = 8000; port < 8003; port++) {
      for (let i = 0; i < PORT_COUNT; i++) {
        const to = { ip: server.ipv4, port };
        sockets.push(await fromClient(to, { bind, bindAddressNoPort: true }));
      }
    }
    assert.equal(new Set(sockets.map((socket) => socket.localPort)).size, PORT_COUNT);
    assert.ok(sockets.every((socket) => socket.localAddress === client.ipv4));
    lab.exec(client, "sysctl", "-q", "-w", "net.ipv4.ip_local_port_range=32768 60999");
  });

  test("a packet socket hears what passes in its namespace", async () => {
    const { fd } = make({
      netnsFd: inServer.fd,
      family: "packet",
      type: "dgram",
      protocol: 0x0800,
    });
    const listener = listen();
    await fromClient({ ip: server.ipv4, port: native.localAddress(listener).port });
    const packet = new Uint8Array(2048);
    const length = readSync(fd, packet);
    assert.equal(packet.subarray(0, length)[0], 0x45);
  });

  test("the privileges of the shared mode are found", async () => {
    const before = new LeakCheck();
    checkSharedModePrivileges(native);
    await before.assertNone();
  });

  test("a process without capabilities is told which one it lacks", () => {
    const refused: [options: string, message: string][] = [
      ["netnsFd: own", "EPERM: operation not permitted, setns fd \\d+ \\(needs CAP_SYS_ADMIN\\)"],
      ["mark: 1", "EPERM: operation not permitted, setsockopt SO_MARK \\(needs CAP_NET_ADMIN\\)"],
      [
        'transparent: "required"',
        "EPERM: operation not permitted, setsockopt IP_TRANSPARENT \\(needs CAP_NET_ADMIN or CAP_NET_RAW\\)",
      ],
      ['family: "packet"', "EPERM: operation not permitted, socket \\(needs CAP_NET_RAW\\)"],
      ['transparent: "try"', "transparent false"],
    ];
    const script = `
      import { openSync } from "node:fs";
      import { native } from ${JSON.stringify(import.meta.resolve("../../src/net/native.ts"))};
      const own = openSync("/proc/self/ns/net", "r");
      process.seteuid(65534);
      for (const more of [${refused.map(([options]) => `{ ${options} }`).join(", ")}]) {
        try {
          const made = native.socketInNamespace({ family: "ipv4", type: "stream", ...more });
          console.log("transparent", made.transparent);
        } catch (error) { console.log(error.message); }
      }`;
    const parameters = ["--input-type=module", "-e", script];
    const lines = execFileSync(process.execPath, parameters, { encoding: "utf8" }).split("\n");
    for (const [i, [, message]] of refused.entries()) {
      assert.match(lines[i] ?? "", new RegExp(`^${message}$`));
    }
  });
});
