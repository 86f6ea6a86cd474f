/**
 * The `baggage` header of a CONNECT and of its answer: who a workload is, for the peer's telemetry.
 * Not W3C baggage to the letter: values are neither escaped nor trimmed, as in the rest of the mesh.
 *
 * @see spec data-path 3.4.
 */
import { isHeaderText } from "./header-text.ts";

/** Empty strings are fields that are not there. */
export interface Baggage {
  readonly clusterId: string;
  readonly namespace: string;
  /** `deployment`, `cronjob`, `pod` or `job`; has no meaning without a name. */
  readonly workloadType: string;
  readonly workloadName: string;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  readonly region: string;
  readonly zone: string;
}

/**
 * `key=value` pairs joined by commas, in the order of the fields; empty for an empty baggage.
 * A value that no header can carry is left out.
 */
export function formatBaggage(baggage: Baggage): string {
  let header = "";
  const add = (key: string, value: string): void => {
    if (value === "" || !isHeaderText(value)) return;
    header += header === "" ? `${key}=${value}` : `,${key}=${value}`;
  };
  add("k8s.cluster.name", baggage.clusterId);
  add("k8s.namespace.name", baggage.namespace);
  if (baggage.workloadType !== "") {
    add(`k8s.${baggage.workloadType}.name`, baggage.workloadName);
  }
  add("service.name", baggage.canonicalName);
  add("service.version", baggage.canonicalRevision);
  add("cloud.region", baggage.region);
  add("cloud.availability_zone", baggage.zone);
  return header;
}

/**
 * Reads what {@link formatBaggage} writes; total.
 *
 * @param header all `baggage` fields of the message, joined by commas.
 * @returns an empty baggage when the header is not plain text. Unknown keys are ignored, of
 * repeated ones the last counts.
 */
export function parseBaggage(header: string): Baggage {
  const found = {
    clusterId: "",
    namespace: "",
    workloadType: "",
    workloadName: "",
    canonicalName: "",
    canonicalRevision: "",
    region: "",
    zone: "",
  };
  if (!isHeaderText(header)) return found;
  for (const pair of header.split(",")) {
    const [key = "", value = ""] = pair.split("=", 2);
    switch (key) {
      case "k8s.cluster.name":
        found.clusterId = value;
        break;
      case "k8s.namespace.name":
        found.namespace = value;
        break;
      case "k8s.deployment.name":
      case "k8s.cronjob.name":
      case "k8s.pod.name":
      case "k8s.job.name":
        found.workloadType = value === "" ? "" : key.slice("k8s.".length, -".name".length);
        found.workloadName = value;
        break;
      case "service.name":
        found.canonicalName = value;
        break;
      case "service.version":
        found.canonicalRevision = value;
        break;
      case "cloud.region":
        found.region = value;
        break;
      case "cloud.availability_zone":
        found.zone = value;
        break;
      default:
    }
  }
  return found;
}
