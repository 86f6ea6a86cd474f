/**
 * The discovery gRPC service over a mesh that changes: every stream is a conversation, told of each
 * change as soon as its client has taken in what came before.
 *
 * @see spec control-plane 1, corrections B21 for the codes of refusals.
 */
import {
  type handleBidiStreamingCall,
  type ServerDuplexStream,
  type ServiceDefinition,
  status,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import type { Clock } from "../runtime/clock.ts";
import {
  AUTHORIZATION_TYPE,
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponse,
  deltaDiscoveryMethod,
} from "../wire/delta-discovery.ts";
import type { CallerCheck } from "./caller-check.ts";
import { answerHeaders, type GrpcService } from "./control-plane-server.ts";
import { DiscoveryConversation, type DiscoveryNode, NodeError } from "./discovery-conversation.ts";
import type { MeshSnapshot } from "./mesh-snapshot.ts";

export interface DiscoveryServiceDeps {
  readonly callers: CallerCheck;
  readonly snapshot: MeshSnapshot;
  readonly clock: Clock;
  /** Told of each proxy that comes and goes, each push and each refusal, one line. */
  readonly report: (line: string) => void;
}

type Call = ServerDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

export class DiscoveryService implements GrpcService {
  readonly definition: ServiceDefinition = { deltaAggregatedResources: deltaDiscoveryMethod };
  readonly implementation: UntypedServiceImplementation;
  readonly #deps: DiscoveryServiceDeps;
  readonly #streams = new Set<DiscoveryStream>();
  #snapshot: MeshSnapshot;

  constructor(deps: DiscoveryServiceDeps) {
    this.#deps = deps;
    this.#snapshot = deps.snapshot;
    this.implementation = { deltaAggregatedResources: this.#serve };
  }

  /** Pushes what is different now to whom it concerns. */
  update(snapshot: MeshSnapshot): void {
    this.#snapshot = snapshot;
    for (const stream of this.#streams) stream.update(snapshot);
  }

  /** Ends every stream in the words by which proxies know that they shall connect anew, without an error. */
  close(): void {
    for (const stream of this.#streams) stream.end();
  }

  readonly #serve: handleBidiStreamingCall<DeltaDiscoveryRequest, DeltaDiscoveryResponse> = (
    call,
  ) => {
    const { callers, clock, report } = this.#deps;
    callers.identify(call.metadata).then(
      (caller) => {
        if (caller === undefined) {
          report("refused a proxy: authentication failure");
          refuse(call, status.UNAUTHENTICATED, "authentication failure");
          return;
        }
        const conversation = new DiscoveryConversation(this.#snapshot, clock);
        const stream = new DiscoveryStream({ call, conversation, report }, caller.node);
        this.#streams.add(stream);
        call.once("close", () => this.#streams.delete(stream));
      },
      (error: unknown) => {
        report(`refused a proxy: ${String(error)}`);
        refuse(call, status.INTERNAL, "internal error");
      },
    );
  };
}

interface StreamParts {
  readonly call: Call;
  readonly conversation: DiscoveryConversation;
  readonly report: (line: string) => void;
}

/** One client, as long as it stays. */
class DiscoveryStream {
  readonly #parts: StreamParts;
  /** The only node that the client may speak for. */
  readonly #ownNode: string | undefined;
  /** What is to be told once the client has taken in what was sent. */
  #pending: MeshSnapshot | undefined;
  #isFull = false;

  constructor(parts: StreamParts, ownNode: string | undefined) {
    this.#parts = parts;
    this.#ownNode = ownNode;
    const { call } = parts;
    call.on("data", (request: DeltaDiscoveryRequest) => this.#receive(request));
    call.on("drain", () => this.#drained());
    call.on("end", () => call.end());
    call.once("close", () => this.#say("disconnected"));
    // Clients that vanish are told by `close`.
    call.on("error", () => {});
  }

  update(snapshot: MeshSnapshot): void {
    if (this.#isFull) this.#pending = snapshot;
    else this.#send(this.#parts.conversation.update(snapshot));
  }

  end(): void {
    refuse(this.#parts.call, status.UNAVAILABLE, "transport is closing");
  }

  #receive(request: DeltaDiscoveryRequest): void {
    const { call, conversation } = this.#parts;
    const isFirst = conversation.node === undefined;
    try {
      const { responses, nack } = conversation.receive(request);
      if (isFirst && !this.#welcome()) return;
      if (nack !== undefined) this.#say(`refused ${kindOf(nack.typeUrl)}: ${nack.reason}`);
      this.#send(responses);
    } catch (error) {
      if (!(error instanceof NodeError)) throw error;
      this.#say(`refused: ${error.message}`);
      refuse(call, status.INVALID_ARGUMENT, error.message);
    }
  }

  /** @returns false when the client may not speak for the node that it named. */
  #welcome(): boolean {
    const nodeName = this.#parts.conversation.node?.nodeName;
    if (this.#ownNode === undefined || this.#ownNode === nodeName) {
      this.#say("connected");
      this.#parts.call.sendMetadata(answerHeaders());
      return true;
    }
    const details = `authorization failed: no identities ([node ${this.#ownNode}]) matched node ${nodeName}`;
    this.#say(`refused: ${details}`);
    refuse(this.#parts.call, status.PERMISSION_DENIED, details);
    return false;
  }

  #send(responses: readonly DeltaDiscoveryResponse[]): void {
    const { call } = this.#parts;
    for (const response of responses) {
      if (!call.write(response)) this.#isFull = true;
      const { typeUrl, resources, removedResources } = response;
      this.#say(`sent ${resources.length} ${kindOf(typeUrl)}, removed ${removedResources.length}`);
    }
  }

  #drained(): void {
    this.#isFull = false;
    const snapshot = this.#pending;
    this.#pending = undefined;
    if (snapshot !== undefined) this.#send(this.#parts.conversation.update(snapshot));
  }

  #say(what: string): void {
    const { conversation, report } = this.#parts;
    report(`${describe(conversation.node)}: ${what}`);
  }
}

/** As trailers only while nothing has been sent, which clients take for a failed connection. */
function refuse(call: Call, code: status, details: string): void {
  call.emit("error", { code, details });
}

function describe(node: DiscoveryNode | undefined): string {
  if (node === undefined) return "a proxy";
  return node.nodeName === "" ? node.id : `proxy of ${node.nodeName}`;
}

function kindOf(typeUrl: string): string {
  return typeUrl === AUTHORIZATION_TYPE ? "policies" : "addresses";
}
