/** The file that describes a mesh, read again whenever it changes. */
import { readFile } from "node:fs/promises";
import { LocalMeshError, parseLocalMesh, readLocalMeshText } from "../config/local-mesh-file.ts";
import type { Clock, Timer } from "../runtime/clock.ts";
import { MeshSnapshot } from "./mesh-snapshot.ts";

export interface MeshFollower {
  readonly clock: Clock;
  /** Told of each mesh that replaces the former one. */
  readonly changed: (snapshot: MeshSnapshot) => void;
  /** Told when the former mesh stays because the file has mistakes, all of them. */
  readonly refused: (mistakes: readonly string[]) => void;
}

/** Between two looks; two in a row must agree, so that half written files are not read. */
const LOOK_MS = 100;

export class MeshFile {
  readonly #path: string;
  /** What the current mesh was made of, or the mistakes were found in. */
  #taken: string;
  #seen: string;
  #snapshot: MeshSnapshot;
  #timer: Timer | undefined;
  #closed = false;

  /** @throws LocalMeshError when it can't be read or has mistakes. */
  constructor(path: string) {
    this.#path = path;
    this.#taken = readLocalMeshText(path);
    this.#seen = this.#taken;
    this.#snapshot = parse(this.#taken, path);
  }

  get snapshot(): MeshSnapshot {
    return this.#snapshot;
  }

  /** Looks no more. Idempotent. */
  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  /** Looks for changes from now on. */
  follow(follower: MeshFollower): void {
    this.#timer = follower.clock.after(LOOK_MS, () => void this.#look(follower));
  }

  async #look(follower: MeshFollower): Promise<void> {
    // One that is not there is being replaced, or its directory is: nothing has changed yet.
    const text = await readFile(this.#path, "utf8").catch(() => this.#taken);
    if (this.#closed) return;
    const isStill = text === this.#seen;
    this.#seen = text;
    if (isStill && text !== this.#taken) this.#take(text, follower);
    this.follow(follower);
  }

  #take(text: string, { changed, refused }: MeshFollower): void {
    this.#taken = text;
    try {
      this.#snapshot = parse(text, this.#path);
    } catch (error) {
      if (!(error instanceof LocalMeshError)) throw error;
      refused(error.mistakes);
      return;
    }
    changed(this.#snapshot);
  }
}

function parse(text: string, path: string): MeshSnapshot {
  return MeshSnapshot.of(parseLocalMesh(text, path));
}
