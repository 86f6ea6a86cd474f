/** Pods that their labels put into the mesh while nothing says that they have been taken in. */
import type { Namespaces } from "./kubernetes-places.ts";
import type { Pod } from "./kubernetes-pods.ts";
import { isTunnelled } from "./kubernetes-workload.ts";

const MODE_LABEL = "istio.io/dataplane-mode";
/** Enough to see what they have in common. */
const NAMED_MAX = 5;

/**
 * In a cluster istio-cni annotates what it has taken in, and istiod goes by that alone. Objects that
 * somebody wrote by hand lack it, and others would talk to their pods in plain text.
 *
 * @returns one sentence, or none.
 */
export function uncapturedPodNotes(
  pods: readonly Pod[],
  namespaces: Namespaces,
): readonly string[] {
  const uncaptured = pods.filter((pod) => {
    const mode =
      pod.labels.get(MODE_LABEL) ?? namespaces.find(pod.namespace).labels.get(MODE_LABEL);
    return mode === "ambient" && !pod.isOnHostNetwork && !pod.hasEnded && !isTunnelled(pod);
  });
  if (uncaptured.length === 0) return [];
  const names = uncaptured.slice(0, NAMED_MAX).map(({ namespace, name }) => `${namespace}/${name}`);
  const more = uncaptured.length - names.length;
  return [
    `reached by plain TCP, without the annotation ambient.istio.io/redirection: enabled that istio-cni gives: ${names.join(", ")}${more > 0 ? ` and ${more} more` : ""}`,
  ];
}
