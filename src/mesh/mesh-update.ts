/** One step of mesh knowledge, as it comes from a control plane or a file. */
import type { AuthorizationPolicy } from "./authorization.ts";
import type { Service } from "./service.ts";
import type { Workload } from "./workload.ts";

export type MeshUpdate =
  | { readonly kind: "workload"; readonly workload: Workload }
  | { readonly kind: "service"; readonly service: Service }
  /** A workload uid or `namespace/hostname` of a service. */
  | { readonly kind: "remove-address"; readonly name: string }
  | { readonly kind: "policy"; readonly policy: AuthorizationPolicy }
  /** `namespace/name`. */
  | { readonly kind: "remove-policy"; readonly name: string };
