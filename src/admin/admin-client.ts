/** Asks the admin port of a running daemon, for the commands. */
import { request } from "node:http";
import { text } from "node:stream/consumers";
import { systemProblem } from "../runtime/system-problem.ts";

/** A daemon that hangs is said to. */
const ANSWER_MS_MAX = 30_000;

/**
 * @param address `host:port` of the admin port.
 * @param path with its query.
 * @returns the parsed answer.
 * @throws Error in words for an operator: nobody listens there, or what the daemon says.
 */
export function askAdmin(
  address: string,
  path: string,
  method: "GET" | "POST" = "GET",
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const fail = (reason: string): void => reject(new Error(`ztunnel at ${address}: ${reason}`));
    const url = `http://${address}${path}`;
    if (!/:\d+$/.test(address) || !URL.canParse(url)) return fail("this is not HOST:PORT");
    const asked = request(url, {
      method,
      timeout: ANSWER_MS_MAX,
    });
    asked.on("timeout", () => asked.destroy(new Error(`no answer within ${ANSWER_MS_MAX} ms`)));
    asked.on("error", (error: NodeJS.ErrnoException) => {
      const isAbsent = error.code === "ECONNREFUSED";
      fail(isAbsent ? "nobody listens, is it running?" : systemProblem(error));
    });
    asked.on("response", (response) => {
      text(response).then(
        (body) => {
          if (response.statusCode === 200) resolve(JSON.parse(body));
          else fail(body.trim() || `status ${response.statusCode}`);
        },
        (error: Error) => fail(error.message),
      );
    });
    asked.end();
  });
}
