/** A real client of SOCKS5, and the server that it calls. */
import { once } from "node:events";
import { type LabServer, listenOn } from "./lab-application.ts";
import type { LabHost, NetnsLab } from "./netns-lab.ts";

/** What {@link serveHttp} answers; larger than a socket's buffer. */
export const HTTP_BODY: string = "x".repeat(300_000);

/** @returns the body, or what curl says went wrong. */
export async function curl(
  net: NetnsLab,
  host: LabHost,
  url: string,
  ...more: readonly string[]
): Promise<string> {
  const options = ["--silent", "--show-error", "--stderr", "-", "--max-time", "20", "--globoff"];
  const child = net.spawn(host, "curl", ...options, "--socks5", "127.0.0.1:15080", ...more, url);
  let output = "";
  child.stdout?.on("data", (chunk: Buffer) => {
    output += chunk.toString();
  });
  await once(child, "close");
  return output;
}

/** Answers every request with the same body, and hangs up. */
export function serveHttp(host: LabHost, port: number): LabServer {
  return listenOn(host, port, (socket) => {
    socket.once("data", () => {
      const head = `HTTP/1.1 200 OK\r\nContent-Length: ${HTTP_BODY.length}\r\nConnection: close\r\n\r\n`;
      socket.end(head + HTTP_BODY);
    });
  });
}
