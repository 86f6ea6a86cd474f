/** A cluster of Kubernetes objects to which the actions of the recording are done. */
import {
  type KubernetesDocument,
  readKubernetesDocuments,
} from "../../src/embedded/kubernetes-document.ts";
import { recordedText } from "../support/istiod-recording.ts";

type Json = Readonly<Record<string, unknown>>;

/** Its objects, in the order in which they were made. */
export class KubernetesCluster {
  readonly #objects = new Map<string, KubernetesDocument>();

  get documents(): readonly KubernetesDocument[] {
    return [...this.#objects.values()];
  }

  /** @param text YAML. */
  apply(text: string): void {
    const { documents, mistakes } = readKubernetesDocuments(text);
    if (mistakes.length > 0) throw new Error(mistakes.join("\n"));
    for (const document of documents) this.#objects.set(keyOf(document), document);
  }

  /** @param text YAML of which kind and name count. */
  delete(text: string): void {
    for (const document of readKubernetesDocuments(text).documents) {
      this.remove(keyOf(document));
    }
  }

  /** @param key `Kind namespace/name`, or `Kind name`. */
  remove(key: string): void {
    if (!this.#objects.delete(key)) throw new Error(`no ${key}`);
  }

  /** A merge patch as in RFC 7396. */
  patch(key: string, patch: Json): void {
    const document = this.#objects.get(key);
    if (document === undefined) throw new Error(`no ${key}`);
    this.#objects.set(key, { ...document, value: merge(document.value, patch) });
  }
}

/** A file of the recording's `kubernetes/` by its name or the beginning of it. */
export function recordedObjects(file: string): string {
  return recordedText(`kubernetes/${file}`);
}

function keyOf({ kind, namespace, name }: KubernetesDocument): string {
  return `${kind} ${namespace === "" ? "" : `${namespace}/`}${name}`;
}

function merge(value: Json, patch: Json): Json {
  const merged: Record<string, unknown> = { ...value };
  for (const [key, change] of Object.entries(patch)) {
    if (change === null) delete merged[key];
    else if (isMap(change)) merged[key] = merge(isMap(merged[key]) ? merged[key] : {}, change);
    else merged[key] = change;
  }
  return merged;
}

function isMap(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
