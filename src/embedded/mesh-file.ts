/**
 * The file that describes a mesh, read again whenever it changes: in the format of LOCAL_XDS_PATH, or
 * Kubernetes objects.
 */
import { readFile } from "node:fs/promises";
import { LocalMeshError, parseLocalMesh, readLocalMeshText } from "../config/local-mesh-file.ts";
import type { Clock, Timer } from "../runtime/clock.ts";
import type { AllocatedAddresses } from "./kubernetes-address-allocation.ts";
import { readKubernetesDocuments } from "./kubernetes-document.ts";
import { KUBERNETES_DEFAULTS, translateKubernetes } from "./kubernetes-mesh.ts";
import { MeshSnapshot } from "./mesh-snapshot.ts";

export interface MeshFollower {
  readonly clock: Clock;
  /** Told of each mesh that replaces the former one. */
  readonly changed: (snapshot: MeshSnapshot) => void;
  /** Told when the former mesh stays because the file has mistakes, all of them. */
  readonly refused: (mistakes: readonly string[]) => void;
}

interface ReadMesh {
  readonly snapshot: MeshSnapshot;
  readonly allocated: AllocatedAddresses;
  readonly notes: readonly string[];
}

/** Every Kubernetes object says what it is; the other format has no such keys. */
const KUBERNETES = /^(?:apiVersion|kind)[ \t]*:/m;

/** Between two looks; two in a row must agree, so that half written files are not read. */
const LOOK_MS = 100;

export class MeshFile {
  readonly #path: string;
  /** What the current mesh was made of, or the mistakes were found in. */
  #taken: string;
  #seen: string;
  #mesh: ReadMesh;
  #timer: Timer | undefined;
  #closed = false;

  /** @throws LocalMeshError when it can't be read or has mistakes. */
  constructor(path: string) {
    this.#path = path;
    this.#taken = readLocalMeshText(path);
    this.#seen = this.#taken;
    this.#mesh = readMesh(this.#taken, path, KUBERNETES_DEFAULTS.allocated);
  }

  get snapshot(): MeshSnapshot {
    return this.#mesh.snapshot;
  }

  /** What of it was passed over, because a mesh has no use for it. */
  get notes(): readonly string[] {
    return this.#mesh.notes;
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
      this.#mesh = readMesh(text, this.#path, this.#mesh.allocated);
    } catch (error) {
      if (!(error instanceof LocalMeshError)) throw error;
      refused(error.mistakes);
      return;
    }
    changed(this.#mesh.snapshot);
  }
}

/** @throws LocalMeshError with every mistake. */
function readMesh(text: string, path: string, allocated: AllocatedAddresses): ReadMesh {
  if (!KUBERNETES.test(text)) {
    return { snapshot: MeshSnapshot.of(parseLocalMesh(text, path)), allocated, notes: [] };
  }
  const { documents, mistakes } = readKubernetesDocuments(text);
  const mesh = translateKubernetes(documents, { ...KUBERNETES_DEFAULTS, allocated });
  const all = [...mistakes, ...mesh.mistakes];
  if (all.length > 0) throw new LocalMeshError(all.map((mistake) => `${path}: ${mistake}`));
  return {
    snapshot: new MeshSnapshot(mesh.addresses, mesh.authorizations),
    allocated: mesh.allocated,
    notes: mesh.notes,
  };
}
