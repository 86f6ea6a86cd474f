/** Resolvers and clients of DNS in a lab host's namespace. */
import { createSocket, type Socket as DatagramSocket } from "node:dgram";
import { once } from "node:events";
import { closeSync, mkdirSync, openSync, readFileSync } from "node:fs";
import type { Socket } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { framed, MessageStream } from "../../src/dns/message-stream.ts";
import { native } from "../../src/net/native.ts";
import { connectFrom, listenOn } from "./lab-application.ts";
import type { LabHost, NetnsLab } from "./netns-lab.ts";
import { waitUntil } from "./wait-until.ts";

/** A datagram socket of the host. */
export function datagramsOf(host: LabHost, bind?: { ip: string; port: number }): DatagramSocket {
  const netnsFd = openSync(host.path, "r");
  const { fd } = native.socketInNamespace({
    netnsFd,
    family: bind?.ip.includes(":") === true ? "ipv6" : "ipv4",
    type: "dgram",
    bind: bind ?? { ip: "0.0.0.0", port: 0 },
  });
  closeSync(netnsFd);
  const socket = createSocket(bind?.ip.includes(":") === true ? "udp6" : "udp4");
  socket.bind({ fd });
  return socket;
}

/** What a query from the host to a nameserver brings back. @throws when nothing comes in time. */
export async function askFrom(
  host: LabHost,
  nameserver: string,
  transport: "udp" | "tcp",
  query: Uint8Array,
  withinMs = 20_000,
): Promise<Buffer> {
  const signal = AbortSignal.timeout(withinMs);
  if (transport === "udp") {
    const socket = datagramsOf(host);
    try {
      socket.send(query, 53, nameserver);
      const [message] = await once(socket, "message", { signal });
      return message;
    } finally {
      socket.close();
    }
  }
  const socket = await connectFrom(host, nameserver, 53);
  try {
    socket.write(framed(query));
    const stream = new MessageStream();
    for (;;) {
      const [chunk] = await once(socket, "data", { signal });
      const [message] = stream.take(chunk);
      if (message !== undefined) return message;
    }
  } finally {
    socket.destroy();
  }
}

/** Runs dig in the host. @returns what it prints. */
export async function dig(net: NetnsLab, host: LabHost, ...args: string[]): Promise<string> {
  const child = net.spawn(host, "dig", "+time=15", "+tries=1", ...args);
  return text(child.stdout as NonNullable<typeof child.stdout>);
}

/** A resolver of the test's own: what it gets, and what it says of each message, if anything. */
export class ScriptedResolver {
  readonly messages: Buffer[] = [];
  /** Where they came from. */
  readonly sources: string[] = [];
  readonly #datagrams: DatagramSocket;
  readonly #server: { close(): void };

  constructor(
    host: LabHost,
    answer: (message: Buffer, transport: "udp" | "tcp") => readonly Buffer[],
  ) {
    this.#datagrams = datagramsOf(host, { ip: host.ipv4, port: 53 });
    this.#datagrams.on("message", (message, { address, port }) => {
      this.messages.push(message);
      this.sources.push(address);
      for (const reply of answer(message, "udp")) this.#datagrams.send(reply, port, address);
    });
    this.#server = listenOn(host, 53, (socket: Socket, peer) => {
      const stream = new MessageStream();
      socket.on("error", () => {});
      socket.on("data", (chunk: Buffer) => {
        for (const message of stream.take(chunk)) {
          this.messages.push(message);
          this.sources.push(peer.ip);
          for (const reply of answer(message, "tcp")) socket.write(framed(reply));
        }
      });
      socket.on("end", () => socket.end());
    });
  }

  close(): void {
    this.#datagrams.close();
    this.#server.close();
  }
}

/** dnsmasq in a host, answering for itself; settles when it listens. */
export async function startDnsmasq(
  net: NetnsLab,
  host: LabHost,
  folder: string,
  ...options: string[]
): Promise<{ queries(): readonly string[] }> {
  const own = join(folder, host.netns);
  mkdirSync(own, { recursive: true });
  const log = join(own, "dnsmasq.log");
  net.spawn(
    host,
    "dnsmasq",
    ...["--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file="],
    ...["--no-resolv", "--no-hosts", "--local-ttl=60", `--log-facility=${log}`, "--log-queries"],
    ...options,
  );
  const lines = (): string[] => {
    try {
      return readFileSync(log, "utf8").split("\n");
    } catch {
      return [];
    }
  };
  // Said when all of its sockets are there, of both transports.
  await waitUntil(
    () => lines().some((line) => line.includes(": started, version ")),
    "dnsmasq never listened",
  );
  return { queries: () => lines().filter((line) => / query\[/.test(line)) };
}
