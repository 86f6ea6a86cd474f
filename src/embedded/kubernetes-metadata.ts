/** What every Kubernetes object says about itself, and how labels select. */
import type { KubernetesFields, Labels } from "./kubernetes-fields.ts";

export interface KubernetesMetadata {
  readonly name: string;
  /** Empty for an object that belongs to the cluster. */
  readonly namespace: string;
  readonly labels: Labels;
  readonly annotations: Labels;
}

/** True for all of the selector's labels with equal values; an empty selector is true for all. */
export function selects(selector: Labels, labels: Labels): boolean {
  for (const [key, value] of selector) if (labels.get(key) !== value) return false;
  return true;
}

/** Kubernetes' larger selector. */
export type LabelSelector = (labels: Labels) => boolean;

/** `matchLabels` and `matchExpressions`, all of which must hold. */
export function readLabelSelector(fields: KubernetesFields): LabelSelector {
  const matchLabels = fields.labels("matchLabels");
  const expressions = fields.list("matchExpressions").map(readExpression);
  return (labels) => selects(matchLabels, labels) && expressions.every((holds) => holds(labels));
}

function readExpression(fields: KubernetesFields): LabelSelector {
  const key = fields.text("key");
  const values = new Set(fields.texts("values"));
  const operators = ["In", "NotIn", "Exists", "DoesNotExist"] as const;
  switch (fields.choice("operator", operators, "In")) {
    case "In":
      return (labels) => values.has(labels.get(key) ?? "") && labels.has(key);
    case "NotIn":
      return (labels) => !labels.has(key) || !values.has(labels.get(key) ?? "");
    case "Exists":
      return (labels) => labels.has(key);
    case "DoesNotExist":
      return (labels) => !labels.has(key);
  }
}

/** Of an annotation or label that is a switch; anything else than a yes is a no. */
export function isYes(values: Labels, key: string): boolean {
  return ["1", "t", "T", "true", "TRUE", "True"].includes(values.get(key) ?? "");
}
