/**
 * The server's half of one delta discovery stream, without its transport: which resources a client
 * asks for, and what it is sent first and after each change. It says what istiod says to a proxy.
 *
 * @see spec control-plane 1.3 and 1.7, corrections A1, A5, B1 to B12.
 */
import { isIP } from "node:net";
import type { Clock } from "../runtime/clock.ts";
import { formatTimestamp } from "../runtime/timestamp.ts";
import {
  ADDRESS_TYPE,
  AUTHORIZATION_TYPE,
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponse,
} from "../wire/delta-discovery.ts";
import type { AddressEntry, MeshResource, MeshSnapshot } from "./mesh-snapshot.ts";

/** Whom a stream belongs to, as its first request says. */
export interface DiscoveryNode {
  readonly id: string;
  readonly namespace: string;
  /** `undefined`: not said. */
  readonly serviceAccount: string | undefined;
  /** Kubernetes node; empty when not said. */
  readonly nodeName: string;
}

/** What a client said about a response. */
export interface Nack {
  readonly typeUrl: string;
  readonly reason: string;
}

/** A first request that nobody can answer; the message is istiod's. */
export class NodeError extends Error {
  override readonly name = "NodeError";
}

/** What a client has to do with one type. */
interface Subscription {
  /** Keys that were asked for; `undefined`: everything, whatever its name. */
  asked: Set<string> | undefined;
  /** Name → version of what the client has. */
  readonly sent: Map<string, string>;
  nonce: string;
}

const NODE_TYPES = new Set(["sidecar", "router", "waypoint", "ztunnel"]);
/** Of these istiod takes nothing but text. */
const TEXT_METADATA = [
  "CLUSTER_ID",
  "ENABLE_HBONE",
  "INSTANCE_IPS",
  "ISTIO_VERSION",
  "NAME",
  "NAMESPACE",
  "NETWORK",
  "NODE_NAME",
  "SERVICE_ACCOUNT",
];
const ALL = "*";

export class DiscoveryConversation {
  readonly #subscriptions = new Map<string, Subscription>();
  readonly #clock: Clock;
  #snapshot: MeshSnapshot;
  #node: DiscoveryNode | undefined;
  #pushes = 0;

  constructor(snapshot: MeshSnapshot, clock: Clock) {
    this.#snapshot = snapshot;
    this.#clock = clock;
  }

  /** Known after the first request. */
  get node(): DiscoveryNode | undefined {
    return this.#node;
  }

  /**
   * @returns what to send, and a refusal of something that was sent.
   * @throws NodeError when the first request does not say who is asking.
   */
  receive(request: DeltaDiscoveryRequest): {
    readonly responses: readonly DeltaDiscoveryResponse[];
    readonly nack: Nack | undefined;
  } {
    this.#node ??= readNode(request.node);
    const { typeUrl, responseNonce, errorDetail } = request;
    const subscription = this.#subscriptions.get(typeUrl);
    if (subscription === undefined) {
      return { responses: [this.#first(request)], nack: undefined };
    }
    const nack =
      errorDetail !== undefined && responseNonce === subscription.nonce
        ? { typeUrl, reason: errorDetail.message }
        : undefined;
    const response = this.#demand(subscription, request);
    return { responses: response === undefined ? [] : [response], nack };
  }

  /** The mesh has changed. @returns what to send: addresses first, as istiod does. */
  update(snapshot: MeshSnapshot): readonly DeltaDiscoveryResponse[] {
    this.#snapshot = snapshot;
    return [ADDRESS_TYPE, AUTHORIZATION_TYPE].flatMap((typeUrl) => {
      const subscription = this.#subscriptions.get(typeUrl);
      if (subscription === undefined) return [];
      const wanted = this.#wanted(typeUrl, subscription);
      const changed = [...wanted.values()].filter(
        ({ name, version }) => subscription.sent.get(name) !== version,
      );
      const gone = [...subscription.sent.keys()].filter((name) => !wanted.has(name));
      return changed.length === 0 && gone.length === 0
        ? []
        : [this.#respond(typeUrl, subscription, changed, gone)];
    });
  }

  #first(request: DeltaDiscoveryRequest): DeltaDiscoveryResponse {
    const { typeUrl, resourceNamesSubscribe, initialResourceVersions } = request;
    const onDemand = resourceNamesSubscribe.length > 0;
    const known = [...initialResourceVersions.keys()];
    const subscription: Subscription = {
      asked: onDemand
        ? new Set([...known, ...resourceNamesSubscribe].filter((name) => name !== ALL))
        : undefined,
      sent: new Map(),
      nonce: "",
    };
    this.#subscriptions.set(typeUrl, subscription);
    const wanted = this.#wanted(typeUrl, subscription);
    for (const [name, version] of initialResourceVersions) {
      if (wanted.get(name)?.version === version) subscription.sent.set(name, version);
    }
    const changed = [...wanted.values()].filter(({ name }) => !subscription.sent.has(name));
    const gone = known.filter((name) => !wanted.has(name) && !this.#isFound(typeUrl, name));
    return this.#respond(typeUrl, subscription, changed, gone);
  }

  /** A key that was asked before is never answered again, found or not. */
  #demand(
    subscription: Subscription,
    request: DeltaDiscoveryRequest,
  ): DeltaDiscoveryResponse | undefined {
    const { typeUrl, resourceNamesSubscribe, resourceNamesUnsubscribe } = request;
    const asked = subscription.asked;
    if (asked === undefined) {
      if (resourceNamesSubscribe.length === 0) return undefined;
      const everything = [...this.#wanted(typeUrl, subscription).values()];
      return this.#respond(typeUrl, subscription, everything, []);
    }
    if (resourceNamesUnsubscribe.length > 0) this.#forget(subscription, request);
    const fresh = resourceNamesSubscribe.filter((key) => !asked.has(key));
    if (fresh.length === 0) return undefined;
    for (const key of fresh) asked.add(key);
    const found = fresh.flatMap((key) => this.#lookUp(key));
    return this.#respond(
      typeUrl,
      subscription,
      [...new Set(found)],
      fresh.filter((key) => !this.#isFound(typeUrl, key)),
    );
  }

  /** Not answered; changes of what nobody wants any more are not told either. */
  #forget({ asked, sent }: Subscription, request: DeltaDiscoveryRequest): void {
    const { typeUrl, resourceNamesUnsubscribe } = request;
    for (const key of resourceNamesUnsubscribe) asked?.delete(key);
    const wanted = this.#wanted(typeUrl, { asked });
    for (const name of sent.keys()) if (!wanted.has(name)) sent.delete(name);
  }

  #wanted(
    typeUrl: string,
    { asked }: Pick<Subscription, "asked">,
  ): ReadonlyMap<string, MeshResource> {
    if (typeUrl === AUTHORIZATION_TYPE) return this.#snapshot.authorizations;
    if (typeUrl !== ADDRESS_TYPE) return new Map();
    if (asked === undefined) return this.#snapshot.addresses;
    const nodeName = this.#node?.nodeName ?? "";
    const wanted = new Map<string, MeshResource>();
    for (const entry of this.#snapshot.addresses.values()) {
      const isLocal =
        nodeName !== "" &&
        entry.resource.kind === "workload" &&
        entry.resource.workload.node === nodeName;
      if (isLocal) wanted.set(entry.name, entry);
    }
    for (const key of asked) for (const entry of this.#lookUp(key)) wanted.set(entry.name, entry);
    return wanted;
  }

  #lookUp(key: string): readonly AddressEntry[] {
    const entry = this.#snapshot.find(key);
    return entry === undefined ? [] : this.#snapshot.withWorkloads(entry);
  }

  #isFound(typeUrl: string, key: string): boolean {
    return typeUrl === ADDRESS_TYPE && this.#snapshot.find(key) !== undefined;
  }

  #respond(
    typeUrl: string,
    subscription: Subscription,
    resources: readonly MeshResource[],
    gone: readonly string[],
  ): DeltaDiscoveryResponse {
    for (const { name, version } of resources) subscription.sent.set(name, version);
    for (const name of gone) subscription.sent.delete(name);
    const version = `${formatTimestamp(this.#clock.now()).replace(/\.\d+/, "")}/${++this.#pushes}`;
    subscription.nonce = `${version}${crypto.randomUUID()}`;
    return {
      systemVersionInfo: version,
      typeUrl,
      nonce: subscription.nonce,
      resources: resources.map((resource) => ({
        name: resource.name,
        // Policies have no versions: they are sent in full on every stream.
        version: typeUrl === ADDRESS_TYPE ? resource.version : "",
        aliases: subscription.asked === undefined ? [] : aliasesOf(resource),
        resource: { typeUrl, value: resource.bytes },
      })),
      removedResources: [...gone],
    };
  }
}

function aliasesOf(resource: MeshResource | AddressEntry): string[] {
  return "aliases" in resource ? [...resource.aliases] : [];
}

function readNode(node: DeltaDiscoveryRequest["node"]): DiscoveryNode {
  if (node === undefined || node.id === "") throw new NodeError("missing node information");
  const parts = node.id.split("~");
  if (parts.length !== 4) throw new NodeError(`missing parts in the service node "${node.id}"`);
  const [type = "", ip = "", , domain = ""] = parts;
  if (!NODE_TYPES.has(type)) {
    const types = [...NODE_TYPES].join(" ");
    throw new NodeError(
      `invalid node type (valid types: [${types}]) in the service node "${node.id}"`,
    );
  }
  const metadata: Readonly<Record<string, unknown>> = node.metadata ?? {};
  for (const name of TEXT_METADATA) {
    if (typeof (metadata[name] ?? "") === "string") continue;
    const sorted = Object.fromEntries(Object.entries(metadata).toSorted());
    throw new NodeError(`failed to unmarshal node metadata (${JSON.stringify(sorted)})`);
  }
  const text = (name: string): string => String(metadata[name] ?? "");
  if (![ip, ...text("INSTANCE_IPS").split(",")].some((address) => isIP(address) !== 0)) {
    throw new NodeError("no valid IP address in the service node id or metadata");
  }
  return {
    id: node.id,
    namespace: text("NAMESPACE") || (domain.split(".")[0] ?? ""),
    serviceAccount: text("SERVICE_ACCOUNT") || undefined,
    nodeName: text("NODE_NAME"),
  };
}
