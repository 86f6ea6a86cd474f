/** All policies of the mesh, and which of them a workload names. */
import { Action, type Authorization, Scope } from "../wire/proto/istio-security.ts";
import { NO_MATCH, type SelectingPolicy } from "./kubernetes-authorization-policies.ts";
import type { Labels } from "./kubernetes-fields.ts";
import { selects } from "./kubernetes-metadata.ts";
import type { PeerAuthentications } from "./kubernetes-peer-authentications.ts";
import type { Waypoint } from "./kubernetes-waypoints.ts";

/** What policies are made from. */
export interface PolicySources {
  readonly authorizations: readonly SelectingPolicy[];
  readonly peerAuthentications: PeerAuthentications;
  readonly waypoints: readonly Waypoint[];
  readonly rootNamespace: string;
  readonly trustDomain: string;
  /** Whether waypoints may reach what stands behind them without being asked for. */
  readonly autoAllowWaypoints: boolean;
}

export class WorkloadPolicies {
  readonly #sources: PolicySources;

  constructor(sources: PolicySources) {
    this.#sources = sources;
  }

  all(): readonly Authorization[] {
    const { authorizations, peerAuthentications, waypoints } = this.#sources;
    return [
      ...authorizations.map(({ message }) => message),
      ...peerAuthentications.policies(),
      ...waypoints.filter((waypoint) => this.#isAllowed(waypoint)).map((one) => this.#allow(one)),
    ];
  }

  /**
   * `namespace/name` of the policies that a workload of these labels names; those of a whole
   * namespace or mesh are not among them.
   */
  of(namespace: string, labels: Labels): readonly string[] {
    const { authorizations, peerAuthentications, rootNamespace } = this.#sources;
    const selecting = authorizations
      .filter(({ message }) => [namespace, rootNamespace].includes(message.namespace))
      // istiod attaches every selecting policy to what has no labels at all.
      .filter(
        ({ selector }) => selector.size > 0 && (labels.size === 0 || selects(selector, labels)),
      )
      .map(({ message }) => policyKey(message));
    return [...selecting.toSorted(), ...peerAuthentications.keysFor(namespace, labels)];
  }

  /** Those that let the waypoints in. */
  ofWaypoints(waypoints: readonly Waypoint[]): readonly string[] {
    return waypoints
      .filter((waypoint) => this.#isAllowed(waypoint))
      .map((waypoint) => policyKey(this.#allow(waypoint)));
  }

  #isAllowed({ serviceAccounts }: Waypoint): boolean {
    return this.#sources.autoAllowWaypoints && serviceAccounts.length > 0;
  }

  #allow({ gateway: { namespace, name }, serviceAccounts }: Waypoint): Authorization {
    const principals = serviceAccounts.map((account) => {
      const value = `${this.#sources.trustDomain}/ns/${namespace}/sa/${account}`;
      return { matchType: { $case: "exact", value } as const };
    });
    return {
      name: `istio_allow_waypoint_${namespace}_${name}`,
      namespace,
      scope: Scope.WORKLOAD_SELECTOR,
      action: Action.ALLOW,
      rules: [{ clauses: [{ matches: [{ ...NO_MATCH, principals }] }] }],
      dryRun: false,
      extensions: [],
    };
  }
}

/** @returns `namespace/name`. */
export function policyKey({ namespace, name }: Authorization): string {
  return `${namespace}/${name}`;
}
