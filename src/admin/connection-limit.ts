/**
 * How many connections an HTTP server has at once. At the limit a newcomer takes the place of whoever
 * has been silent longest: half a request each must not keep a probe out.
 */
import type { IncomingMessage, Server, ServerResponse } from "node:http";

type Socket = IncomingMessage["socket"];

export class ConnectionLimit {
  readonly #connectionsMax: number;
  readonly #open = new Set<Socket>();
  /** Those that wait for no answer, the longest silent first. */
  readonly #silent = new Set<Socket>();

  constructor(server: Server, connectionsMax: number) {
    this.#connectionsMax = connectionsMax;
    server.on("connection", (socket: Socket) => this.#take(socket));
    server.on("request", (request: IncomingMessage, response: ServerResponse) => {
      const { socket } = request;
      this.#silent.delete(socket);
      response.once("close", () => {
        if (this.#open.has(socket)) this.#silent.add(socket);
      });
    });
  }

  #take(socket: Socket): void {
    this.#open.add(socket);
    if (this.#open.size > this.#connectionsMax) this.#drop(this.#longestSilent() ?? socket);
    if (socket.destroyed) return;
    this.#silent.add(socket);
    socket.once("close", () => this.#forget(socket));
  }

  #longestSilent(): Socket | undefined {
    for (const socket of this.#silent) return socket;
    return undefined;
  }

  #drop(socket: Socket): void {
    this.#forget(socket);
    socket.destroy();
  }

  #forget(socket: Socket): void {
    this.#open.delete(socket);
    this.#silent.delete(socket);
  }
}
