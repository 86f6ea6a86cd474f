/** Plain HTTP to a port of a lab host, from the host itself. */
import { request } from "node:http";
import { connectFrom } from "./lab-application.ts";
import type { LabHost } from "./netns-lab.ts";

/** @returns the body. @throws on refusal or a status other than 200. */
export async function httpFrom(
  host: LabHost,
  method: "GET" | "POST",
  port: number,
  path: string,
): Promise<Buffer> {
  const socket = await connectFrom(host, "127.0.0.1", port);
  return new Promise((resolve, reject) => {
    const asked = request({ method, path, createConnection: () => socket }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () => {
        socket.destroy();
        const body = Buffer.concat(chunks);
        if (response.statusCode === 200) resolve(body);
        else reject(new Error(`${path}: ${response.statusCode} ${body}`));
      });
    });
    asked.on("error", reject);
    asked.end();
  });
}
