/** Resources as steps of mesh knowledge: one batch for each response. */
import type { MeshUpdate } from "../mesh/mesh-update.ts";
import { decodeAddress } from "../wire/address-resource.ts";
import { decodeAuthorization } from "../wire/authorization-resource.ts";
import type { ResourceSink } from "./delta-client.ts";

/** Hands over a batch; its end is the end of a response. */
export type ApplyBatch = (updates: readonly MeshUpdate[]) => void;

/** Workloads and services. */
export class AddressSink implements ResourceSink {
  readonly #apply: ApplyBatch;
  #batch: MeshUpdate[] = [];

  constructor(apply: ApplyBatch) {
    this.#apply = apply;
  }

  put(_name: string, bytes: Uint8Array): void {
    this.#batch.push(decodeAddress(bytes));
  }

  remove(name: string): void {
    this.#batch.push({ kind: "remove-address", name });
  }

  commit(): void {
    const batch = this.#batch;
    this.#batch = [];
    this.#apply(batch);
  }
}

/** Authorization policies. */
export class AuthorizationSink implements ResourceSink {
  readonly #apply: ApplyBatch;
  #batch: MeshUpdate[] = [];

  constructor(apply: ApplyBatch) {
    this.#apply = apply;
  }

  put(_name: string, bytes: Uint8Array): void {
    this.#batch.push({ kind: "policy", policy: decodeAuthorization(bytes) });
  }

  remove(name: string): void {
    this.#batch.push({ kind: "remove-policy", name });
  }

  commit(): void {
    const batch = this.#batch;
    this.#batch = [];
    this.#apply(batch);
  }
}
