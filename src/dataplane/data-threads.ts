/**
 * The threads that the data path runs on, begun before it is known what they are to do: a thread takes
 * about as long to begin as the daemon takes to load, so both go on at the same time.
 */
import { setFlagsFromString } from "node:v8";
import { Worker } from "node:worker_threads";

/**
 * Young generation of a thread. What a connection needs for a moment is small and lives shortly; V8's
 * own limit of 48 MB is never given back when a burst has filled it.
 */
const YOUNG_MB_MAX = 8;

/** A thread that waits for its {@link ThreadStart} as its first message. */
export interface StartedThread {
  readonly name: string;
  readonly worker: Worker;
  /** Settles when the thread dies, also of what went wrong before anybody looked. */
  readonly died: Promise<Error>;
}

/** @param count none are fine. */
export function startDataThreads(count: number): readonly StartedThread[] {
  // A young generation this small is collected sooner than helpers are woken up.
  setFlagsFromString("--no-parallel-scavenge");
  return Array.from({ length: count }, (_, index) => startThread(`data-${index}`));
}

function startThread(name: string): StartedThread {
  // The sources, what the compiler made of them and the bundle run alike.
  const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
  const worker = new Worker(new URL(`../dataplane/data-worker.${extension}`, import.meta.url), {
    name,
    resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MB_MAX },
    // Sockets come from the addon, of which Node's own account of descriptors knows nothing.
    trackUnmanagedFds: false,
  });
  const died = new Promise<Error>((resolve) => {
    worker.once("error", (error: unknown) =>
      resolve(error instanceof Error ? error : new Error(String(error))),
    );
    worker.once("exit", (code) => resolve(new Error(`data thread ended with code ${code}`)));
  });
  return { name, worker, died };
}
