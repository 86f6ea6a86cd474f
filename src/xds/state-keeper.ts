/**
 * Keeps what the control plane said last in a file, for a restart while it is away (`STATE_DIR`).
 *
 * What is restored is served at once and offered to the control plane by its versions, so that only
 * what changed meanwhile comes again. A policy that was refused is kept, too: whom it may have been
 * meant for must know after a restart as before.
 */
import type { Clock, Timer } from "../runtime/clock.ts";
import { errorText } from "../runtime/error-text.ts";
import type { MeshWriter, ResourceType } from "../state/mesh-writer.ts";
import type { Logger } from "../telemetry/logger.ts";
import { WireError } from "../wire/wire-error.ts";
import type { MeshCommitted } from "./mesh-subscription.ts";
import { type KeptResource, readStateFile, StateFileError, writeStateFile } from "./state-file.ts";

export interface StateKeeperDeps {
  readonly writer: MeshWriter;
  /** Told of what was restored. */
  readonly committed: MeshCommitted;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface StateKeeperOptions {
  /** Made when it is not there. */
  readonly folder: string;
  /** From a change until it is written: a busy mesh changes many times a second. Milliseconds. */
  readonly everyMs: number;
  /** What is older is not served: addresses belong to other pods by then. Milliseconds. */
  readonly ageMsMax: number;
}

const TYPES: readonly ResourceType[] = ["address", "policy"];
/** Taken in at a time; between two, others may use the thread. */
const RESTORED_AT_A_TIME = 256;

export class StateKeeper {
  readonly #deps: StateKeeperDeps;
  readonly #options: StateKeeperOptions;
  readonly #log: Logger;
  #timer: Timer | undefined;
  #saving: Promise<void> = Promise.resolve();

  constructor(deps: StateKeeperDeps, options: StateKeeperOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#log = deps.log.target("ztunnel::xds::state");
  }

  /**
   * Puts what was kept into the mesh; a file that can't be used is told and left alone.
   *
   * @returns when it was taken, milliseconds since the epoch; `undefined`: nothing was put.
   */
  async restore(): Promise<number | undefined> {
    const { clock, writer, committed } = this.#deps;
    const { folder, ageMsMax } = this.#options;
    try {
      const kept = await readStateFile(folder);
      if (kept === undefined) return undefined;
      const ageMs = clock.now() - kept.takenAt;
      const age = `${Math.round(ageMs / 1000)}s old`;
      // Ahead of us is a clock that was set back; so far ahead is one that was never right.
      if (Math.abs(ageMs) > ageMsMax) throw new StateFileError(`the state in ${folder} is ${age}`);
      let count = 0;
      for (const resource of kept.resources) {
        this.#put(resource);
        if (++count % RESTORED_AT_A_TIME === 0) {
          await new Promise<void>((resolve) => clock.after(0, resolve, true));
        }
      }
      committed(writer.commit());
      this.#log.write("info", `serving the mesh that was kept, ${age}`, [["resources", count]]);
      return kept.takenAt;
    } catch (error) {
      this.#log.write("warn", `starting without the mesh that was kept: ${errorText(error)}`);
      return undefined;
    }
  }

  /** The mesh, whole, has changed: it is written within the time that the options say. */
  changed(): void {
    this.#timer ??= this.#deps.clock.after(this.#options.everyMs, () => this.#save());
  }

  /** Writes what has changed since the last time. */
  async close(): Promise<void> {
    if (this.#timer !== undefined) this.#save();
    await this.#saving;
  }

  #save(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#saving = this.#saving.then(async () => {
      const { folder } = this.#options;
      try {
        await writeStateFile(folder, this.#deps.clock.now(), this.#resources());
      } catch (error) {
        this.#log.write("warn", `can't keep the mesh in ${folder}: ${errorText(error)}`);
      }
    });
  }

  /** What goes while it is written is left out, what changes is taken as it is then. */
  *#resources(): Iterable<KeptResource> {
    const { writer } = this.#deps;
    for (const type of TYPES) {
      const names = Array.from(writer.versions(type), ([name]) => name);
      for (const name of names) {
        const found = writer.resource(type, name);
        if (found !== undefined) yield { type, name, ...found };
      }
    }
    for (const refusal of [...writer.refusals()]) yield { type: "policy", version: "", ...refusal };
  }

  #put({ type, name, version, bytes }: KeptResource): void {
    const { writer } = this.#deps;
    try {
      if (type === "address") writer.putAddress(bytes, version);
      else if (bytes.length === 0) writer.refusePolicy(name, undefined);
      else writer.putPolicy(bytes, version);
    } catch (error) {
      // It was refused, or an older version of this program understood it.
      if (!(error instanceof WireError)) throw error;
      this.#log.write("warn", `${name} of the mesh that was kept: ${error.message}`);
      if (type === "policy") writer.refusePolicy(name, bytes);
    }
  }
}
