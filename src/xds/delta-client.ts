/**
 * Our half of a delta discovery conversation, without its transport: what to ask, what an answer
 * changes, and what to reply. It outlives streams: what was accepted is offered to the next one.
 *
 * @see spec control-plane 1.3 to 1.7, and corrections B1 to B14 for what istiod does with it.
 */
import type { DeltaDiscoveryRequest, DeltaResponse, Resource } from "../wire/delta-discovery.ts";
import { WireError } from "../wire/wire-error.ts";

/** Where the resources of one type go, and where their versions are kept. */
export interface ResourceSink {
  /**
   * New or changed. The bytes are valid during the call only.
   *
   * @throws WireError when they are not understood; its message becomes the reason of the NACK.
   */
  put(name: string, version: string, bytes: Uint8Array): void;
  /** Came and was not understood. @param bytes `undefined`: a name with nothing. */
  refused(name: string, bytes: Uint8Array | undefined): void;
  /** May name what was never put: that changes nothing. */
  remove(name: string): void;
  /** All of a response was put and removed. */
  commit(): void;
  /** Of what was put last under the name and not removed. */
  versionOf(name: string): string | undefined;
  /** Name and version of all that was put and not removed. */
  versions(): Iterable<readonly [name: string, version: string]>;
  /** Names of what was refused and would have to be forgotten if it went. */
  refusals(): Iterable<string>;
}

export interface SubscribedType {
  readonly url: string;
  /** Ask for single resources when they are needed, instead of for all. */
  readonly onDemand: boolean;
  readonly sink: ResourceSink;
}

/** Who we are, in the first request of each type. */
export interface NodeDescription {
  /** `ztunnel~ip~pod.namespace~namespace.svc.cluster.local` */
  readonly id: string;
  readonly metadata: Readonly<Record<string, unknown>>;
}

export interface DeltaClientOptions {
  readonly node: NodeDescription;
  /**
   * What the names and versions offered to a new stream may take, bytes: istiod refuses requests over
   * 4 MiB for ever. What finds no place comes again with the first answer, or is gone.
   */
  readonly offeredBytesMax: number;
}

/** A resource that was refused. */
interface Refusal {
  readonly name: string;
  readonly reason: string;
}

/** What is known of one type on the current stream. */
interface TypeState {
  readonly type: SubscribedType;
  /** Keys that were asked for on any stream; what came for them may have another name. */
  readonly wanted: Set<string>;
  /** What was not offered to this stream: its first answer must name it, or it goes. */
  readonly unconfirmed: Set<string>;
  /** Key → who waits for the first answer to it. */
  readonly waiting: Map<string, (() => void)[]>;
  /** Keys asked for on this stream; a server never answers one twice. */
  readonly asked: Set<string>;
  accepted: boolean;
}

const ALL = "*";
/** Of resources that are refused at once: istiod refuses requests over 4 MiB, and people read the line. */
const REASONS_MAX = 100;
/** A map entry's tags and lengths, beside its text. */
const ENTRY_OVERHEAD_BYTES = 8;

export class DeltaClient {
  readonly #options: DeltaClientOptions;
  readonly #types: ReadonlyMap<string, TypeState>;

  /** @param types in the order in which they are asked for. */
  constructor(types: readonly SubscribedType[], options: DeltaClientOptions) {
    this.#options = options;
    this.#types = new Map(
      types.map((type) => [
        type.url,
        {
          type,
          wanted: new Set(),
          unconfirmed: new Set(),
          waiting: new Map(),
          asked: new Set(),
          accepted: false,
        },
      ]),
    );
  }

  /** URLs of the types of which all is asked for and nothing has been accepted yet. */
  missing(): readonly string[] {
    return [...this.#types.values()]
      .filter(({ type, accepted }) => !type.onDemand && !accepted)
      .map(({ type }) => type.url);
  }

  /** A new stream is there: the requests to send at once, without waiting for any answer. */
  open(): readonly DeltaDiscoveryRequest[] {
    return [...this.#types.values()].map((state) => this.#firstRequest(state));
  }

  /**
   * Asks for one resource by `network/ip`, `namespace/hostname` or uid.
   *
   * @param answered called once, after the sink has taken in the answer, also when it is that there
   *   is no such thing; at once when the answer is known.
   * @returns what to send, if there is a stream; nothing when it was asked before.
   */
  demand(url: string, key: string, answered: () => void): DeltaDiscoveryRequest | undefined {
    const state = this.#types.get(url);
    if (state === undefined) throw new Error(`nobody subscribed to ${url}`);
    const waiting = state.waiting.get(key);
    if (waiting !== undefined) {
      waiting.push(answered);
      return undefined;
    }
    if (state.asked.has(key)) {
      answered();
      return undefined;
    }
    state.waiting.set(key, [answered]);
    state.asked.add(key);
    // So that the next stream asks for it, if this one ends before it is answered.
    state.wanted.add(key);
    return request(url, { resourceNamesSubscribe: [key] });
  }

  /** Nobody waits any longer for the answer to a key. */
  abandon(url: string, key: string, answered: () => void): void {
    const waiting = this.#types.get(url)?.waiting;
    const rest = waiting?.get(key)?.filter((other) => other !== answered);
    if (rest === undefined) return;
    if (rest.length === 0) waiting?.delete(key);
    else waiting?.set(key, rest);
  }

  /** Takes an answer, which may be worked through in steps. One at a time. */
  receive(response: DeltaResponse): DeltaExchange {
    return new DeltaExchange(response, this.#types.get(response.typeUrl));
  }

  #firstRequest(state: TypeState): DeltaDiscoveryRequest {
    const { type } = state;
    const initialResourceVersions = offerVersions(state, this.#options.offeredBytesMax);
    state.asked.clear();
    if (type.onDemand) for (const key of state.waiting.keys()) state.asked.add(key);
    const everything = type.onDemand ? [ALL] : [];
    return request(type.url, {
      node: { id: this.#options.node.id, cluster: "", metadata: this.#options.node.metadata },
      resourceNamesSubscribe: everything,
      resourceNamesUnsubscribe: everything,
      initialResourceVersions,
    });
  }
}

/** One answer on its way into the sink. */
export class DeltaExchange {
  readonly #response: DeltaResponse;
  readonly #resources: Iterator<Resource>;
  readonly #state: TypeState | undefined;
  readonly #refusals: Refusal[] = [];

  constructor(response: DeltaResponse, state: TypeState | undefined) {
    this.#response = response;
    this.#resources = response.resources[Symbol.iterator]();
    this.#state = state;
  }

  /** False for a type that nobody asked for; it is acknowledged all the same. */
  get known(): boolean {
    return this.#state !== undefined;
  }

  /**
   * Hands some more resources to the sink; one that is refused does not stop the others.
   *
   * @returns true while there may be more.
   * @throws WireError when the response is broken in between.
   */
  step(resourcesMax: number): boolean {
    const state = this.#state;
    if (state === undefined) return false;
    for (let i = 0; i < resourcesMax; i++) {
      const { done, value } = this.#resources.next();
      if (done === true) return false;
      this.#put(state, value);
    }
    return true;
  }

  /** After the last step: removals, those who waited, and what to send back. */
  finish(): DeltaDiscoveryRequest {
    const { typeUrl, nonce, removedResources } = this.#response;
    const state = this.#state;
    if (state !== undefined) {
      for (const name of removedResources) remove(state, name);
      for (const name of state.unconfirmed) remove(state, name);
      state.unconfirmed.clear();
      state.type.sink.commit();
      if (this.#refusals.length === 0) state.accepted = true;
      this.#wake(state);
    }
    const errorDetail =
      this.#refusals.length === 0
        ? undefined
        : { code: 0, message: describeRefusals(this.#refusals) };
    return request(typeUrl, { responseNonce: nonce, errorDetail });
  }

  #put(state: TypeState, { name, version, resource }: Resource): void {
    const { sink } = state.type;
    state.unconfirmed.delete(name);
    // A change of a service sends its workloads again, most of them as they were.
    if (version !== "" && sink.versionOf(name) === version) return;
    try {
      if (resource === undefined) {
        throw new WireError("incomplete", "XDS payload without resource");
      }
      sink.put(name, version, resource.value);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      sink.refused(name, resource?.value);
      this.#refusals.push({ name, reason: error.message });
    }
  }

  #wake(state: TypeState): void {
    if (state.waiting.size === 0) return;
    const { resources, removedResources } = this.#response;
    for (const { name, aliases } of resources) {
      wake(state, name);
      for (const alias of aliases) wake(state, withoutPrefixLength(alias));
    }
    for (const key of removedResources) wake(state, key);
  }
}

function describeRefusals(refusals: readonly Refusal[]): string {
  const reasons = refusals
    .slice(0, REASONS_MAX)
    .map(({ name, reason }) => `${name}: ${reason}`)
    .join("; ");
  const rest = refusals.length - REASONS_MAX;
  return rest > 0 ? `${reasons}; and ${rest} more` : reasons;
}

/** A range is asked for by its first address, but answered as `network/address/length`. */
function withoutPrefixLength(alias: string): string {
  const [network, address] = alias.split("/");
  return `${network}/${address}`;
}

function remove(state: TypeState, name: string): void {
  state.type.sink.remove(name);
  state.wanted.delete(name);
}

function wake(state: TypeState, key: string): void {
  const waiting = state.waiting.get(key);
  state.waiting.delete(key);
  for (const answered of waiting ?? []) answered();
}

/** @returns name → version, empty for what was only asked for; the rest is to be confirmed. */
function offerVersions(state: TypeState, bytesMax: number): Map<string, string> {
  const { type, wanted, unconfirmed } = state;
  const offered = new Map<string, string>();
  unconfirmed.clear();
  let bytes = 0;
  const offer = (name: string, version: string): void => {
    bytes += Buffer.byteLength(name) + version.length + ENTRY_OVERHEAD_BYTES;
    if (bytes <= bytesMax) offered.set(name, version);
    else unconfirmed.add(name);
  };
  for (const key of wanted) offer(key, "");
  for (const [name, version] of type.sink.versions()) offer(name, version);
  // Never offered, so that they come again; what does not come has gone meanwhile.
  for (const name of type.sink.refusals()) unconfirmed.add(name);
  return offered;
}

function request(typeUrl: string, fields: Partial<DeltaDiscoveryRequest>): DeltaDiscoveryRequest {
  return {
    node: undefined,
    typeUrl,
    resourceNamesSubscribe: [],
    resourceNamesUnsubscribe: [],
    initialResourceVersions: new Map(),
    responseNonce: "",
    errorDetail: undefined,
    ...fields,
  };
}
