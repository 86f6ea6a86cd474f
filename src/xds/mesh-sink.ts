/** Resources on their way into the mesh's memory; what changed is told at the end of each response. */
import type { MeshCommit, MeshWriter } from "../state/mesh-writer.ts";
import type { ResourceSink } from "./delta-client.ts";

/** Tells of what a response changed; readers could see it before. */
export type MeshCommitted = (commit: MeshCommit) => void;

/** Workloads and services. */
export class AddressSink implements ResourceSink {
  readonly #writer: MeshWriter;
  readonly #committed: MeshCommitted;

  constructor(writer: MeshWriter, committed: MeshCommitted) {
    this.#writer = writer;
    this.#committed = committed;
  }

  put(_name: string, version: string, bytes: Uint8Array): void {
    this.#writer.putAddress(bytes, version);
  }

  /** An earlier version stays; without one, nobody is known there. */
  refused(): void {}

  remove(name: string): void {
    this.#writer.removeAddress(name);
  }

  commit(): void {
    this.#committed(this.#writer.commit());
  }

  versionOf(name: string): string | undefined {
    return this.#writer.versionOf("address", name);
  }

  versions(): Iterable<readonly [name: string, version: string]> {
    return this.#writer.versions("address");
  }
}

/** Authorization policies. */
export class AuthorizationSink implements ResourceSink {
  readonly #writer: MeshWriter;
  readonly #committed: MeshCommitted;

  constructor(writer: MeshWriter, committed: MeshCommitted) {
    this.#writer = writer;
    this.#committed = committed;
  }

  put(_name: string, version: string, bytes: Uint8Array): void {
    this.#writer.putPolicy(bytes, version);
  }

  refused(name: string, bytes: Uint8Array | undefined): void {
    this.#writer.refusePolicy(name, bytes);
  }

  remove(name: string): void {
    this.#writer.removePolicy(name);
  }

  commit(): void {
    this.#committed(this.#writer.commit());
  }

  versionOf(name: string): string | undefined {
    return this.#writer.versionOf("policy", name);
  }

  versions(): Iterable<readonly [name: string, version: string]> {
    return this.#writer.versions("policy");
  }
}
