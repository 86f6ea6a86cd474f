/**
 * What a thread looked up lately, as long as the mesh stays as it is. Connections ask the same few
 * questions again and again; between two changes their answers are one look into a map.
 */
import type { MeshMemory } from "./mesh-memory.ts";

/** Answers of one kind; more are forgotten together. */
const ANSWERS_MAX = 1024;

export class MeshAnswers<Key, Answer extends object> {
  readonly #memory: MeshMemory;
  readonly #answers = new Map<Key, Answer>();
  #version = -1;

  constructor(memory: MeshMemory) {
    this.#memory = memory;
  }

  /** @returns `undefined`: not asked since the last change, or answered with nothing. */
  recall(key: Key): Answer | undefined {
    const { version } = this.#memory;
    if (version === this.#version) return this.#answers.get(key);
    this.#answers.clear();
    this.#version = version;
    return undefined;
  }

  /** After {@link recall}; kept unless the mesh has changed since. */
  keep(key: Key, answer: Answer): void {
    if (this.#memory.version !== this.#version) return;
    if (this.#answers.size === ANSWERS_MAX) this.#answers.clear();
    this.#answers.set(key, answer);
  }
}
