/** TCP on loopback to mutual TLS elsewhere, for tools that speak plain HTTP/2 only. */
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { pipeline } from "node:stream/promises";
import { type ConnectionOptions, connect as connectTls } from "node:tls";

export interface TlsShim {
  readonly port: number;
  /** Also ends what is connected. */
  close(): void;
}

/**
 * @param dial opens the TCP connection below TLS.
 * @param options certificate, key and roots; the peer's name is not looked at.
 */
export async function startTlsShim(
  dial: () => Promise<Socket>,
  options: ConnectionOptions,
): Promise<TlsShim> {
  const open = new Set<Socket>();
  async function join(plain: Socket): Promise<void> {
    open.add(plain);
    plain.on("error", () => {});
    try {
      const socket = await dial();
      const secured = connectTls({
        ...options,
        socket,
        ALPNProtocols: ["h2"],
        checkServerIdentity: () => undefined,
      });
      await Promise.all([pipeline(plain, secured), pipeline(secured, plain)]);
    } catch {
      // Whoever left first, the other hears of it.
      plain.destroy();
    } finally {
      open.delete(plain);
    }
  }
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (plain) => void join(plain));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the shim has no port");
  return {
    port: address.port,
    close() {
      server.close();
      for (const plain of open) plain.destroy();
    },
  };
}
