/** What a process of a lab says: in memory, or in a file where it is more than anybody wants there. */
import type { ChildProcess } from "node:child_process";
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";

export class ProcessOutput {
  readonly #file: { readonly path: string; readonly fd: number } | undefined;
  #text = "";
  #isClosed = false;

  /** @param path of a file, which is made or goes on; `undefined`: memory. */
  constructor(path: string | undefined) {
    this.#file = path === undefined ? undefined : { path, fd: openSync(path, "a") };
  }

  /** Takes what it prints from now on, and in a file how it ends, unless the lab does that. */
  follow(process: ChildProcess): void {
    process.stdout?.on("data", (chunk: Buffer) => this.#add(chunk.toString()));
    if (this.#file === undefined) return;
    process.once("exit", (code, signal) => this.#add(`--- ended with ${code ?? signal}\n`));
  }

  /** Whole ones so far. */
  get lines(): string[] {
    const text = this.#file === undefined ? this.#text : readFileSync(this.#file.path, "utf8");
    return text.split("\n").slice(0, -1);
  }

  /** The file stays. Idempotent. */
  close(): void {
    if (this.#file !== undefined && !this.#isClosed) closeSync(this.#file.fd);
    this.#isClosed = true;
  }

  #add(text: string): void {
    if (this.#file === undefined) this.#text += text;
    else if (!this.#isClosed) writeSync(this.#file.fd, text);
  }
}
