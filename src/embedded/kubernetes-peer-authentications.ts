/**
 * Peer authentications as policies that deny connections without an identity.
 *
 * One policy that denies them all is there for every workload that is told so. A workload whose ports
 * differ is told of a policy of its own instead, for whatever any policy denies is denied.
 *
 * @see istio pilot/pkg/serviceregistry/ambient/authorization.go
 */
import { Action, type Authorization, type Clause, Scope } from "../wire/proto/istio-security.ts";
import { NO_MATCH } from "./kubernetes-authorization-policies.ts";
import type { KubernetesFields, Labels } from "./kubernetes-fields.ts";
import { type KubernetesMetadata, selects } from "./kubernetes-metadata.ts";

/** No object of Kubernetes can have a name with an underscore. */
const STRICT_NAME = "istio_converted_static_strict";
const PORTS_PREFIX = "converted_peer_authentication_";
const PORT_MAX = 65535;
const MODES = ["UNSET", "DISABLE", "PERMISSIVE", "STRICT"] as const;

type Mode = (typeof MODES)[number];

export interface PeerAuthentication {
  readonly name: string;
  readonly namespace: string;
  /** `undefined` for the whole namespace; of the root namespace, for the mesh. */
  readonly selector: Labels | undefined;
  readonly mode: Mode;
  /** By port number, rising. */
  readonly ports: readonly (readonly [port: number, mode: Mode])[];
}

export function readPeerAuthentication(
  { name, namespace }: KubernetesMetadata,
  fields: KubernetesFields,
): PeerAuthentication {
  const spec = fields.fields("spec");
  return {
    name,
    namespace,
    selector: spec.has("selector") ? spec.fields("selector").labels("matchLabels") : undefined,
    mode: spec.fields("mtls").choice("mode", MODES, "UNSET"),
    ports: readPorts(spec.fields("portLevelMtls")),
  };
}

function readPorts(ports: KubernetesFields): PeerAuthentication["ports"] {
  const read = ports.keys().map((key) => {
    const isPort = /^\d{1,5}$/.test(key) && Number(key) <= PORT_MAX;
    if (!isPort) ports.mistake(key, "must be a port");
    return [Number(key), ports.fields(key).choice("mode", MODES, "UNSET")] as const;
  });
  return read.toSorted(([a], [b]) => a - b);
}

/** All of the mesh. */
export class PeerAuthentications {
  readonly #all: readonly PeerAuthentication[];
  readonly #rootNamespace: string;

  /** @param all oldest first: of several for the same workloads the oldest counts. */
  constructor(all: readonly PeerAuthentication[], rootNamespace: string) {
    this.#all = all;
    this.#rootNamespace = rootNamespace;
  }

  policies(): readonly Authorization[] {
    if (this.#all.length === 0) return [];
    const ofPorts = this.#all.flatMap((authentication) => this.#portPolicy(authentication) ?? []);
    const strict = denial(this.#rootNamespace, STRICT_NAME, [[WITHOUT_IDENTITY]]);
    return [...ofPorts, strict];
  }

  /** The policies that a workload is told of, `namespace/name`, sorted. */
  keysFor(namespace: string, labels: Labels): readonly string[] {
    const inherited = this.#inheritedMode(namespace);
    const own = this.#all.find(
      (authentication) =>
        authentication.namespace === namespace &&
        namespace !== this.#rootNamespace &&
        hasSelector(authentication) &&
        selects(authentication.selector, labels),
    );
    const mode = own === undefined || own.mode === "UNSET" ? inherited : own.mode;
    if (own !== undefined && hasExceptions(own, mode)) {
      const key = `${namespace}/${PORTS_PREFIX}${own.name}`;
      // The policy of the ports says of itself what holds for the others.
      return [key];
    }
    return mode === "STRICT" ? [`${this.#rootNamespace}/${STRICT_NAME}`] : [];
  }

  /** What holds for a workload that nothing is said of. */
  #inheritedMode(namespace: string): Mode {
    const ofNamespace =
      namespace === this.#rootNamespace ? "UNSET" : (this.#wide(namespace)?.mode ?? "UNSET");
    return ofNamespace === "UNSET"
      ? (this.#wide(this.#rootNamespace)?.mode ?? "UNSET")
      : ofNamespace;
  }

  #wide(namespace: string): PeerAuthentication | undefined {
    return this.#all.find(
      (authentication) => authentication.namespace === namespace && !hasSelector(authentication),
    );
  }

  /** @returns `undefined` when the ports do not differ from the rest. */
  #portPolicy(authentication: PeerAuthentication): Authorization | undefined {
    const { namespace, name, mode, ports } = authentication;
    if (namespace === this.#rootNamespace || authentication.selector === undefined)
      return undefined;
    const inherited = this.#inheritedMode(namespace);
    const effective = mode === "UNSET" ? inherited : mode;
    if (effective !== "STRICT") {
      const strict = ports.filter(([, portMode]) => portMode === "STRICT");
      if (strict.length === 0) return undefined;
      return denial(
        namespace,
        `${PORTS_PREFIX}${name}`,
        strict.map(([port]) => [plaintextTo(port)]),
      );
    }
    const open = ports.filter(
      ([, portMode]) => portMode === "PERMISSIVE" || portMode === "DISABLE",
    );
    if (open.length === 0) return undefined;
    // istiod says it first for the policy and last for what it inherits; twice does no harm.
    const clauses = [
      ...(mode === "STRICT" ? [WITHOUT_IDENTITY] : []),
      ...open.map(([port]) => notTo(port)),
      ...(inherited === "STRICT" ? [WITHOUT_IDENTITY] : []),
    ];
    return denial(namespace, `${PORTS_PREFIX}${name}`, [clauses]);
  }
}

function hasSelector(
  authentication: PeerAuthentication,
): authentication is PeerAuthentication & { readonly selector: Labels } {
  return authentication.selector !== undefined && authentication.selector.size > 0;
}

/** Whether some port of the workload differs from `mode` so that it needs a policy of its own. */
function hasExceptions({ mode, ports }: PeerAuthentication, effective: Mode): boolean {
  const modes = ports.map(([, portMode]) => portMode);
  if (effective !== "STRICT") return modes.includes("STRICT");
  // What is inherited stays strict where a port is switched off: this is istiod's.
  return modes.includes("PERMISSIVE") || (mode === "STRICT" && modes.includes("DISABLE"));
}

function denial(
  namespace: string,
  name: string,
  rules: readonly (readonly Clause[])[],
): Authorization {
  return {
    name,
    namespace,
    scope: Scope.WORKLOAD_SELECTOR,
    action: Action.DENY,
    rules: rules.map((clauses) => ({ clauses: [...clauses] })),
    dryRun: false,
    extensions: [],
  };
}

const ANYBODY = [{ matchType: { $case: "presence", value: {} } } as const];
const WITHOUT_IDENTITY: Clause = { matches: [{ ...NO_MATCH, notPrincipals: ANYBODY }] };

function plaintextTo(port: number): Clause {
  return { matches: [{ ...NO_MATCH, notPrincipals: ANYBODY, destinationPorts: [port] }] };
}

function notTo(port: number): Clause {
  return { matches: [{ ...NO_MATCH, notDestinationPorts: [port] }] };
}
