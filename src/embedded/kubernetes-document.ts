/**
 * Kubernetes YAML as the objects in it, each with the place where it stands.
 *
 * What the apiserver would fill in when the object is applied is filled in where it is read:
 * a namespace here, the rest beside each kind.
 */
import { type Document, isDocument, isNode, LineCounter, parseAllDocuments } from "yaml";
import { yamlProblem } from "../config/yaml-problem.ts";
import { errorText } from "../runtime/error-text.ts";
import { type FieldPath, isRecord, KubernetesFields } from "./kubernetes-fields.ts";

/** One object. */
export interface KubernetesDocument {
  readonly kind: string;
  /** Of `apiVersion`, without the version; empty for the core group. */
  readonly group: string;
  readonly name: string;
  /** Empty when none is written. */
  readonly namespace: string;
  /** As the apiserver wrote it; empty for an object that it has not seen. */
  readonly createdAt: string;
  readonly value: Readonly<Record<string, unknown>>;
  /** `document 3, line 41`, of a field or of the nearest that stands above it. */
  placeOf(path: FieldPath): string;
}

export interface KubernetesDocuments {
  readonly documents: readonly KubernetesDocument[];
  /** What is no YAML or no Kubernetes object; the other documents are there. */
  readonly mistakes: readonly string[];
}

/** Splits a `List` into its items; passes over empty documents. */
export function readKubernetesDocuments(text: string): KubernetesDocuments {
  const lines = new LineCounter();
  const documents: KubernetesDocument[] = [];
  const mistakes: string[] = [];
  const parsed = parseAllDocuments(text, { lineCounter: lines, merge: true, prettyErrors: false });
  const all = Array.isArray(parsed) ? parsed.filter((document) => isDocument(document)) : [];
  for (const [index, document] of all.entries()) {
    const placeAt = (offset: number): string =>
      `document ${index + 1}, line ${lines.linePos(offset).line || 1}`;
    const [error] = document.errors;
    if (error !== undefined) {
      mistakes.push(`${placeAt(error.pos[0])}: ${yamlProblem(error.message)}`);
      continue;
    }
    const placeOf = (path: FieldPath): string => placeAt(offsetOf(document, path));
    try {
      readObject(document.toJS() as unknown, [], placeOf, documents, mistakes);
    } catch (failure) {
      // Aliases that refer to nothing, or to each other more often than anybody writes.
      mistakes.push(`${placeOf([])}: ${errorText(failure)}`);
    }
  }
  return { documents, mistakes };
}

/** @param at where the object is inside the document. */
function readObject(
  value: unknown,
  at: FieldPath,
  placeOf: (path: FieldPath) => string,
  documents: KubernetesDocument[],
  mistakes: string[],
): void {
  if (value === null) return;
  if (!isRecord(value)) {
    mistakes.push(`${placeOf(at)}: must be a Kubernetes object`);
    return;
  }
  const before = mistakes.length;
  const fields = new KubernetesFields(value, at, (path, problem) =>
    mistakes.push(`${placeOf(path)}: ${formatPath(path.slice(at.length))}: ${problem}`),
  );
  const kind = fields.text("kind");
  const apiVersion = fields.text("apiVersion");
  if (kind === "List" && Array.isArray(value["items"])) {
    for (const [index, item] of value["items"].entries()) {
      readObject(item, [...at, "items", index], placeOf, documents, mistakes);
    }
    return;
  }
  const metadata = fields.fields("metadata");
  const name = metadata.text("name");
  const namespace = metadata.text("namespace");
  const createdAt = metadata.text("creationTimestamp");
  if (mistakes.length > before) return;
  if (kind === "" || apiVersion === "" || name === "") {
    mistakes.push(`${placeOf(at)}: must have apiVersion, kind and metadata.name`);
    return;
  }
  documents.push({
    kind,
    group: apiVersion.includes("/") ? (apiVersion.split("/")[0] ?? "") : "",
    name,
    namespace,
    createdAt,
    value,
    placeOf: (path) => placeOf([...at, ...path]),
  });
}

/** As it is written in Kubernetes' own messages: `spec.ports[0].port`. */
export function formatPath(path: FieldPath): string {
  return path
    .map((key, index) => (typeof key === "number" ? `[${key}]` : `${index === 0 ? "" : "."}${key}`))
    .join("");
}

function offsetOf(document: Document, path: FieldPath): number {
  for (let length = path.length; length > 0; length--) {
    const node = document.getIn(path.slice(0, length), true);
    if (isNode(node) && node.range) return node.range[0];
  }
  return document.contents?.range?.[0] ?? document.range?.[0] ?? 0;
}
