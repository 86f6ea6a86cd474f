/**
 * Applications that live in a lab host's namespace while their code runs in the test process. They end
 * with the lab at the latest.
 */
import { closeSync, openSync } from "node:fs";
import { isIPv6, Socket } from "node:net";
import { native } from "../../src/net/native.ts";
import { acceptConnection } from "./accept-connection.ts";
import type { LabHost } from "./netns-lab.ts";

/** What a client saw, in the words of the recorded `clients.json`. */
export interface ClientStory {
  readonly step: "connect" | "half-close" | "read" | "read to end";
  /** `EOF` or an errno's name. */
  readonly end: string;
  readonly received: string;
}

/** An unconnected socket of the host, with both directions independent. */
export function socketOf(host: LabHost, family: "ipv4" | "ipv6" = "ipv4"): Socket {
  const netnsFd = openSync(host.path, "r");
  try {
    const { fd } = native.socketInNamespace({ netnsFd, family, type: "stream" });
    const socket = new Socket({ fd, allowHalfOpen: true });
    host.applications.add(socket);
    return socket.once("close", () => host.applications.delete(socket));
  } finally {
    closeSync(netnsFd);
  }
}

/**
 * @param localAddress one of several that the host has.
 * @returns a connected socket.
 * @throws the connect error.
 */
export function connectFrom(
  host: LabHost,
  ip: string,
  port: number,
  localAddress?: string,
): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = socketOf(host, isIPv6(ip) ? "ipv6" : "ipv4");
    socket.once("error", reject);
    socket.connect({ host: ip, port, localAddress }, () => {
      socket.off("error", reject);
      socket.on("error", () => {});
      resolve(socket);
    });
  });
}

export interface LabServer {
  /** Peers in the order of arrival, `ip:port`. */
  readonly peers: string[];
  /** Also destroys what is connected. Idempotent. */
  close(): void;
}

/** Listens on all addresses of the host; peers of either family are told apart by their address. */
export function listenOn(
  host: LabHost,
  port: number,
  connected: (socket: Socket, peer: { readonly ip: string; readonly port: number }) => void,
): LabServer {
  const netnsFd = openSync(host.path, "r");
  const { fd } = native.socketInNamespace({
    netnsFd,
    family: "ipv6",
    type: "stream",
    dualStack: true,
    reuseAddress: true,
    bind: { ip: "::", port },
    listenBacklog: 4096,
  });
  closeSync(netnsFd);
  const sockets = new Set<Socket>();
  const peers: string[] = [];
  let isClosed = false;
  const watch = native.watchReadable(fd, () => {
    for (;;) {
      const accepted = acceptConnection(fd);
      if (accepted === undefined) return;
      const { peer } = accepted;
      const socket = new Socket({ fd: accepted.fd, allowHalfOpen: true });
      sockets.add(socket);
      socket.on("close", () => sockets.delete(socket));
      socket.on("error", () => {});
      peers.push(`${peer.ip}:${peer.port}`);
      connected(socket, peer);
    }
  });
  const close = (): void => {
    if (isClosed) return;
    isClosed = true;
    host.applications.delete(application);
    watch.close();
    closeSync(fd);
    for (const socket of sockets) socket.destroy();
  };
  const application = { destroy: close };
  host.applications.add(application);
  return { peers, close };
}

/** Answers every chunk twice and passes a half-close back: the server of the recorded situations. */
export function listenDoubling(host: LabHost, port: number): LabServer {
  return listenOn(host, port, (socket) => {
    socket.on("data", (chunk: Buffer) => socket.write(Buffer.concat([chunk, chunk])));
    socket.on("end", () => socket.end());
  });
}

/** Answers every chunk once. */
export function listenEcho(host: LabHost, port: number): LabServer {
  return listenOn(host, port, (socket) => {
    socket.on("end", () => socket.end());
    socket.pipe(socket, { end: false });
  });
}

/**
 * The client of the recorded situations: connects, sends `hello world`, waits for twice that,
 * closes its direction, reads to the end.
 *
 * @param answerLength how many bytes it waits for, where that is something else.
 */
export function tellStory(
  host: LabHost,
  ip: string,
  port: number,
  data: string | Buffer = "hello world",
  answerLength: number = 2 * data.length,
): Promise<ClientStory> {
  return new Promise((resolve) => {
    const socket = socketOf(host, isIPv6(ip) ? "ipv6" : "ipv4");
    let step: ClientStory["step"] = "connect";
    let received = "";
    const done = (end: string): void => {
      socket.destroy();
      resolve({ step, end, received });
    };
    socket.on("error", (error: NodeJS.ErrnoException) => done(error.code ?? error.message));
    socket.on("end", () => done("EOF"));
    socket.on("data", (chunk: Buffer) => {
      received += chunk.toString("latin1");
      if (received.length < answerLength || step !== "read") return;
      step = "read to end";
      socket.end();
    });
    socket.connect({ host: ip, port }, () => {
      step = data.length === 0 ? "read to end" : "read";
      if (data.length === 0) socket.end();
      else socket.write(data);
    });
  });
}
