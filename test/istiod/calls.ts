/** Applications of the pods: servers that say who they are, and those who ask them. */
import type { Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { connectFrom, type LabServer, listenOn } from "../support/lab-application.ts";
import type { LabHost } from "../support/netns-lab.ts";

const ANSWER_MS_MAX = 10_000;
const STEADY_MS = 100;

/** Answers each line with the server's name. */
export function serveName(host: LabHost, port: number, name: string): LabServer {
  return listenOn(host, port, (socket) => {
    socket.on("data", () => socket.write(`${name}\n`));
    socket.on("end", () => socket.end());
  });
}

/** A connection that lives; `ended` settles with `EOF`, an errno's name or `silence`. */
export class Call {
  readonly ended: Promise<string>;
  readonly #socket: Socket;
  #answered: ((name: string) => void) | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.ended = new Promise((resolve) => {
      socket.once("end", () => resolve("EOF"));
      socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    });
    socket.on("data", (chunk: Buffer) => this.#answered?.(chunk.toString().trim()));
  }

  /** @throws the connect error. */
  static async open(from: LabHost, ip: string, port: number): Promise<Call> {
    return new Call(await connectFrom(from, ip, port));
  }

  /** @returns who serves the connection. @throws Error with how it ended instead. */
  async ask(): Promise<string> {
    const answer = new Promise<string>((resolve) => {
      this.#answered = resolve;
    });
    this.#socket.write("who\n");
    const patience = new AbortController();
    const ended = this.ended.then((end) => Promise.reject(new Error(end)));
    const silence = delay(ANSWER_MS_MAX, undefined, patience).then(() => {
      throw new Error("silence");
    });
    silence.catch(() => {});
    return Promise.race([answer, ended, silence]).finally(() => patience.abort());
  }

  close(): void {
    this.#socket.destroy();
  }
}

/**
 * One new connection.
 *
 * @returns who answered; `refused`: it was accepted and ended without an answer, as the proxies do
 *   it; or what happened instead.
 */
export async function outcome(from: LabHost, ip: string, port: number): Promise<string> {
  let call: Call;
  try {
    call = await Call.open(from, ip, port);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
  try {
    return await call.ask();
  } catch (error) {
    const end = error instanceof Error ? error.message : String(error);
    // Whether the end or a reset comes depends on whether the question had been read.
    return end === "EOF" || end === "ECONNRESET" ? "refused" : end;
  } finally {
    call.close();
  }
}

export interface Way {
  readonly from: LabHost;
  readonly ip: string;
  readonly port: number;
}

/** Keeps one connection a way in use and opens others beside it, ten times a second. */
export class SteadyTraffic {
  readonly #failures: string[] = [];
  readonly #ways: readonly Promise<void>[];
  #asked = 0;
  #stopped = false;

  constructor(ways: readonly Way[]) {
    this.#ways = ways.map((way) => this.#walk(way));
  }

  /** @returns how many answers came, and what came instead. */
  async stop(): Promise<{ readonly answers: number; readonly failures: readonly string[] }> {
    this.#stopped = true;
    await Promise.all(this.#ways);
    return { answers: this.#asked, failures: this.#failures };
  }

  async #walk({ from, ip, port }: Way): Promise<void> {
    const lasting = await Call.open(from, ip, port);
    while (!this.#stopped) {
      await this.#count(`lasting ${ip}:${port}`, lasting.ask());
      await this.#count(
        `new ${ip}:${port}`,
        Call.open(from, ip, port).then((call) => call.ask().finally(() => call.close())),
      );
      await delay(STEADY_MS);
    }
    lasting.close();
  }

  async #count(what: string, answer: Promise<string>): Promise<void> {
    try {
      await answer;
      this.#asked++;
    } catch (error) {
      this.#failures.push(`${what}: ${error instanceof Error ? error.message : error}`);
    }
  }
}
