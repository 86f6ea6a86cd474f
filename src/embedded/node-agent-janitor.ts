/**
 * A process that outlives the node agent by a moment: it holds the namespaces whose rules must go,
 * and removes the rules when the pipe to the agent breaks, however the agent ended.
 */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { Netns } from "../net/netns.ts";
import { removeRedirect } from "./redirect-rules.ts";

/** One line of JSON to the janitor; it answers each with a line, empty when done. */
type Order =
  | { readonly kind: "keep"; readonly key: string; readonly path: string }
  | { readonly kind: "forget"; readonly key: string };

/** The agent's side: one janitor process. */
export class NodeAgentJanitor {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #exited: Promise<void>;
  readonly #waiting: ((answer: string) => void)[] = [];
  #closing = false;

  /** @param lost called when the process dies although nobody closed it. */
  constructor(lost: () => void) {
    // A session of its own: Ctrl-C at the agent's terminal is not meant for it.
    this.#child = spawn(process.execPath, [import.meta.filename], {
      stdio: ["pipe", "pipe", "inherit"],
      detached: true,
    });
    this.#child.stdin.on("error", () => {});
    const lines = createInterface({ input: this.#child.stdout });
    lines.on("line", (line) => this.#waiting.shift()?.(line));
    this.#exited = new Promise((resolve) => {
      const ended = (): void => {
        for (const answer of this.#waiting.splice(0)) answer("the janitor process is gone");
        resolve();
        if (!this.#closing) lost();
      };
      this.#child.once("close", ended);
      this.#child.once("error", ended);
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /**
   * Call before rules are installed.
   *
   * @throws Error when the janitor can't hold the namespace.
   */
  keep(netns: Netns): Promise<void> {
    const path = `/proc/${process.pid}/fd/${netns.fd}`;
    return this.#order({ kind: "keep", key: netns.key, path });
  }

  /** Call after rules were removed. */
  forget(netns: Netns): Promise<void> {
    return this.#order({ kind: "forget", key: netns.key });
  }

  /**
   * Lets the janitor remove the rules of all namespaces that it holds; settles when it has ended.
   *
   * @returns whether it did so in good order.
   */
  async close(): Promise<boolean> {
    this.#closing = true;
    this.#child.stdin.end();
    await this.#exited;
    return this.#child.exitCode === 0;
  }

  async #order(order: Order): Promise<void> {
    const answer = await new Promise<string>((resolve) => {
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) {
        return resolve("the janitor process is gone");
      }
      this.#waiting.push(resolve);
      this.#child.stdin.write(`${JSON.stringify(order)}\n`);
    });
    if (answer !== "") throw new Error(answer);
  }
}

/** The janitor's life. */
async function keepHouse(): Promise<void> {
  const kept = new Map<string, Netns>();
  // The agent's end of this pipe may be gone before an answer is written.
  process.stdout.on("error", () => {});
  for await (const line of createInterface({ input: process.stdin })) {
    process.stdout.write(`${obey(kept, JSON.parse(line) as Order)}\n`);
  }
  for (const [key, netns] of kept) {
    await removeRedirect(netns.fd).catch((error: unknown) => {
      console.error(`could not remove the redirect rules of namespace ${key}: ${error}`);
    });
    netns.close();
  }
}

/** @returns what went wrong, in one line. */
function obey(kept: Map<string, Netns>, order: Order): string {
  kept.get(order.key)?.close();
  kept.delete(order.key);
  if (order.kind === "forget") return "";
  try {
    kept.set(order.key, Netns.open(order.path));
    return "";
  } catch (error) {
    return String(error).replaceAll("\n", " ");
  }
}

if (import.meta.main) await keepHouse();
