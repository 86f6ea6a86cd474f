/** Where connections of a torture arrive: the first bytes of each say which one it is. */
import type { Socket } from "node:net";
import { type LabServer, listenOn } from "../lab-application.ts";
import type { MeshLab } from "../mesh-lab.ts";
import { APP_PORT } from "./torture-lab.ts";

export const GREETING_BYTES = 8;

export function greeting(index: number): Buffer {
  const bytes = Buffer.alloc(GREETING_BYTES);
  bytes.writeDoubleBE(index);
  return bytes;
}

export class TortureServers {
  readonly #servers: readonly LabServer[];
  /** Key is the number of the connection. */
  readonly #awaited = new Map<number, (socket: Socket) => void>();

  /** Listens on these hosts at once. */
  constructor(lab: MeshLab, hosts: ReadonlySet<string>) {
    this.#servers = [...hosts].map((name) =>
      listenOn(lab.host(name), APP_PORT, (socket) => this.#hear(socket)),
    );
  }

  /** Settles with the server's end, or with `undefined` when the client's has ended before. */
  arrival(index: number, client: Socket): Promise<Socket | undefined> {
    return new Promise((resolve) => {
      const settle = (socket?: Socket): void => {
        this.#awaited.delete(index);
        client.off("close", refused).off("end", refused);
        resolve(socket);
      };
      const refused = (): void => settle();
      client.once("close", refused).once("end", refused);
      this.#awaited.set(index, settle);
    });
  }

  /** Idempotent. */
  close(): void {
    for (const server of this.#servers) server.close();
  }

  #hear(socket: Socket): void {
    const onReadable = (): void => {
      const bytes: Buffer | null = socket.read(GREETING_BYTES);
      if (bytes === null) return;
      socket.off("readable", onReadable);
      const settle =
        bytes.length < GREETING_BYTES ? undefined : this.#awaited.get(bytes.readDoubleBE());
      if (settle === undefined) socket.destroy();
      else settle(socket);
    };
    socket.on("readable", onReadable);
  }
}
