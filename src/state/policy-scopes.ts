/** Which policies apply to whom. @see spec control-plane 3.4 and 4 */
import { type AuthorizationPolicy, policyKey } from "../mesh/authorization.ts";
import type { Workload } from "../mesh/workload.ts";
import { MeshAnswers } from "./mesh-answers.ts";
import { scopeHash } from "./mesh-keys.ts";
import { type MeshMemory, POLICY_VERSION } from "./mesh-memory.ts";
import type { MeshTables } from "./mesh-tables.ts";

/** What applies to one workload. */
export interface ApplicablePolicies {
  /** Those of its namespace, then the global ones, each by name; then those that it names itself. */
  readonly policies: readonly AuthorizationPolicy[];
  /**
   * Keys of what may apply and is not known: the workload names it and nobody has defined it, or it
   * came for the workload's namespace or for all and was not understood.
   */
  readonly unknown: readonly string[];
}

export class PolicyScopes {
  readonly #memory: MeshMemory;
  readonly #tables: MeshTables;
  /** By namespace, under `undefined` the global ones; as of the version that follows. */
  readonly #scopes = new Map<string | undefined, ApplicablePolicies>();
  #scopesVersion = 0;
  readonly #applicable: MeshAnswers<Workload, ApplicablePolicies>;

  constructor(memory: MeshMemory, tables: MeshTables) {
    this.#memory = memory;
    this.#tables = tables;
    this.#applicable = new MeshAnswers(memory);
  }

  of(workload: Workload): ApplicablePolicies {
    const recalled = this.#applicable.recall(workload);
    if (recalled !== undefined) return recalled;
    const applicable = this.#memory.read(() => {
      const inNamespace = this.#inScope(workload.namespace);
      const everywhere = this.#inScope(undefined);
      const policies = [...inNamespace.policies, ...everywhere.policies];
      const unknown = [...inNamespace.unknown, ...everywhere.unknown];
      for (const key of workload.authorizationPolicies) {
        const policy = this.#tables.policy(key);
        if (policy !== undefined) policies.push(policy.value);
        else if (!unknown.includes(key)) unknown.push(key);
      }
      return { policies, unknown };
    });
    this.#applicable.keep(workload, applicable);
    return applicable;
  }

  /** In an attempt. @param namespace `undefined`: the global ones. */
  #inScope(namespace: string | undefined): ApplicablePolicies {
    const version = this.#memory.word(POLICY_VERSION);
    if (version !== this.#scopesVersion) {
      this.#scopes.clear();
      this.#scopesVersion = version;
    }
    const known = this.#scopes.get(namespace);
    if (known !== undefined) return known;
    const hash = scopeHash(namespace ?? "", namespace === undefined ? "Global" : "Namespace");
    const { policies, refused } = this.#tables.policiesOf(hash as number);
    // Half of a change must not be kept.
    this.#memory.check();
    const applicable: ApplicablePolicies = {
      policies: policies
        .filter((policy) =>
          namespace === undefined ? policy.scope === "Global" : policy.namespace === namespace,
        )
        .sort((a, b) => (policyKey(a) < policyKey(b) ? -1 : 1)),
      unknown: refused
        .filter((key) => namespace === undefined || key.startsWith(`${namespace}/`))
        .sort(),
    };
    this.#scopes.set(namespace, applicable);
    return applicable;
  }
}
