/**
 * What the applications in the pods do. They are sockets of this process made inside the pods'
 * network namespaces: to the kernel, and so to the proxies, they are the pods' own.
 */
import {
  createServer as createHttpServer,
  type Server as HttpServer,
  request as httpRequest,
  type IncomingMessage,
} from "node:http";
import { createServer, type Server, Socket } from "node:net";
import { text } from "node:stream/consumers";
import type { IpAddress } from "../mesh/ip-address.ts";
import { native } from "../net/native.ts";
import type { Netns } from "../net/netns.ts";

export interface HttpAnswer {
  readonly status: number;
  readonly body: string;
}

const CHUNK_BYTES = 1 << 18;

/** Answers every request with what it knows of the caller, and the request's own body. */
export function serveHello(netns: Netns, port: number): HttpServer {
  const server = createHttpServer((request, response) => {
    void respond(request).then((body) => response.end(body));
  });
  server.listen({ fd: listeningSocket(netns, port) });
  return server;
}

async function respond(request: IncomingMessage): Promise<string> {
  const body = await text(request);
  return `hello ${request.socket.remoteAddress}, you said ${body}\n`;
}

/** Swallows everything and says at the end how many bytes that were. */
export function serveStorage(netns: Netns, port: number): Server {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    let byteCount = 0;
    socket.on("data", (chunk) => {
      byteCount += chunk.length;
    });
    socket.on("end", () => socket.end(String(byteCount)));
    socket.on("error", () => socket.destroy());
  });
  server.listen({ fd: listeningSocket(netns, port) });
  return server;
}

/**
 * One request on a connection of its own, as curl does it.
 *
 * @param body sent with POST; left out: GET.
 * @throws what the socket says.
 */
export async function fetchFrom(
  netns: Netns,
  to: { readonly ip: IpAddress; readonly port: number; readonly path: string },
  body?: string,
): Promise<HttpAnswer> {
  const socket = await dial(netns, to.ip, to.port);
  try {
    return await new Promise<HttpAnswer>((resolve, reject) => {
      const request = httpRequest({
        createConnection: () => socket,
        method: body === undefined ? "GET" : "POST",
        host: `${to.ip}:${to.port}`,
        path: to.path,
        headers: { connection: "close" },
      });
      request.on("error", reject);
      request.on("response", (response) => {
        text(response).then(
          (answer) => resolve({ status: response.statusCode ?? 0, body: answer }),
          reject,
        );
      });
      request.end(body);
    });
  } finally {
    socket.destroy();
  }
}

/**
 * Sends so many bytes and waits for the receiver's count.
 *
 * @returns what the receiver counted.
 * @throws what the socket says.
 */
export async function sendBulk(
  netns: Netns,
  to: { readonly ip: IpAddress; readonly port: number },
  byteCount: number,
): Promise<number> {
  const socket = await dial(netns, to.ip, to.port);
  const answer = text(socket);
  const chunk = Buffer.alloc(CHUNK_BYTES, "ztunnel ");
  const write = (rest: number): void => {
    for (let left = rest; left > 0; ) {
      const part = left < chunk.length ? chunk.subarray(0, left) : chunk;
      left -= part.length;
      if (!socket.write(part)) {
        socket.once("drain", () => write(left));
        return;
      }
    }
    socket.end();
  };
  write(byteCount);
  return Number(await answer);
}

/** @throws what the system says. */
function dial(netns: Netns, ip: IpAddress, port: number): Promise<Socket> {
  const { fd } = native.socketInNamespace({ netnsFd: netns.fd, family: "ipv4", type: "stream" });
  const socket = new Socket({ fd, allowHalfOpen: true });
  return new Promise((resolve, reject) => {
    socket.on("error", reject);
    socket.connect({ host: ip, port }, () => resolve(socket));
  });
}

function listeningSocket(netns: Netns, port: number): number {
  return native.socketInNamespace({
    netnsFd: netns.fd,
    family: "ipv4",
    type: "stream",
    reuseAddress: true,
    bind: { ip: "0.0.0.0", port },
    listenBacklog: 128,
  }).fd;
}
