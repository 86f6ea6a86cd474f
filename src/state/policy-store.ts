/**
 * Authorization policies by name and by what they apply to.
 *
 * @see spec control-plane 3.3 and 4.1.
 */
import { type AuthorizationPolicy, policyKey } from "../mesh/authorization.ts";
import type { Workload } from "../mesh/workload.ts";

/** What applies to one workload. */
export interface ApplicablePolicies {
  /** Those of its namespace, then the global ones, then those that it names itself. */
  readonly policies: readonly AuthorizationPolicy[];
  /** Keys that the workload names and nobody has defined: they neither allow nor deny. */
  readonly unknown: readonly string[];
}

export class PolicyStore {
  readonly #byKey = new Map<string, AuthorizationPolicy>();
  readonly #global = new Map<string, AuthorizationPolicy>();
  /** Namespace → key → policies of scope Namespace. */
  readonly #byNamespace = new Map<string, Map<string, AuthorizationPolicy>>();

  get size(): number {
    return this.#byKey.size;
  }

  values(): Iterable<AuthorizationPolicy> {
    return this.#byKey.values();
  }

  insert(policy: AuthorizationPolicy): void {
    const key = policyKey(policy);
    this.remove(key);
    this.#byKey.set(key, policy);
    switch (policy.scope) {
      case "Global":
        this.#global.set(key, policy);
        break;
      case "Namespace": {
        const policies = this.#byNamespace.get(policy.namespace);
        if (policies === undefined) {
          this.#byNamespace.set(policy.namespace, new Map([[key, policy]]));
        } else policies.set(key, policy);
        break;
      }
      case "WorkloadSelector":
        break;
    }
  }

  /** @returns false when there is no such policy. */
  remove(key: string): boolean {
    const policy = this.#byKey.get(key);
    if (policy === undefined) return false;
    this.#byKey.delete(key);
    this.#global.delete(key);
    const policies = this.#byNamespace.get(policy.namespace);
    if (policies?.delete(key) && policies.size === 0) this.#byNamespace.delete(policy.namespace);
    return true;
  }

  applicableTo(workload: Workload): ApplicablePolicies {
    const policies: AuthorizationPolicy[] = [];
    for (const policy of this.#byNamespace.get(workload.namespace)?.values() ?? []) {
      policies.push(policy);
    }
    for (const policy of this.#global.values()) policies.push(policy);
    const unknown: string[] = [];
    for (const key of workload.authorizationPolicies) {
      const policy = this.#byKey.get(key);
      if (policy === undefined) unknown.push(key);
      else policies.push(policy);
    }
    return { policies, unknown };
  }
}
