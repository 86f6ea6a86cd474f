/**
 * Discovery over gRPC, as istiod offers it.
 *
 * @see spec control-plane 1.1 and 1.8, corrections B4 and B5.
 */
import {
  type Client,
  type ClientDuplexStream,
  connectivityState,
  type Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { plainDetails } from "../istiod/grpc-status.ts";
import type { IstiodLine } from "../istiod/istiod-line.ts";
import type { Clock } from "../runtime/clock.ts";
import { errorText } from "../runtime/error-text.ts";
import {
  type DeltaDiscoveryRequest,
  decodeDeltaResponse,
  deltaDiscoveryMethod,
} from "../wire/delta-discovery.ts";
import {
  DiscoveryError,
  type DiscoveryStream,
  type DiscoveryTransport,
  type ReceivedResponse,
} from "./discovery-transport.ts";

export interface GrpcTransportOptions {
  /** Name, TCP and TLS together, milliseconds. */
  readonly connectMs: number;
  /** Of one message; a bigger one ends the stream. */
  readonly receivedBytesMax: number;
}

const SETTLED: ReadonlySet<connectivityState> = new Set([
  connectivityState.READY,
  connectivityState.TRANSIENT_FAILURE,
]);

export class GrpcTransport implements DiscoveryTransport {
  readonly #line: IstiodLine;
  readonly #clock: Clock;
  readonly #options: GrpcTransportOptions;

  constructor(
    deps: { readonly line: IstiodLine; readonly clock: Clock },
    options: GrpcTransportOptions,
  ) {
    this.#line = deps.line;
    this.#clock = deps.clock;
    this.#options = options;
  }

  async open(): Promise<DiscoveryStream> {
    let channel: Client;
    let metadata: Metadata;
    try {
      const rootsPem = await this.#line.readRoots();
      channel = this.#line.openChannel(rootsPem, this.#options.receivedBytesMax);
    } catch (cause) {
      throw new DiscoveryError("setup", `TLS Error: ${errorText(cause)}`, { cause });
    }
    try {
      metadata = await this.#line.metadata();
      await this.#connected(channel);
    } catch (cause) {
      channel.close();
      throw new DiscoveryError("connection", errorText(cause), { status: "Unavailable", cause });
    }
    return new GrpcStream(channel, metadata);
  }

  /** Settles also when the first attempt has failed: the call then fails at once, and says why. */
  #connected(client: Client): Promise<void> {
    const channel = client.getChannel();
    const { connectMs } = this.#options;
    const deadline = this.#clock.now() + connectMs;
    return new Promise((resolve, reject) => {
      const look = (): void => {
        const state = channel.getConnectivityState(true);
        if (SETTLED.has(state)) {
          resolve();
          return;
        }
        channel.watchConnectivityState(state, deadline, (error) => {
          if (error === undefined) look();
          else reject(new Error(`not connected within ${connectMs} ms`));
        });
      };
      look();
    });
  }
}

class GrpcStream implements DiscoveryStream {
  readonly #channel: Client;
  readonly #call: ClientDuplexStream<DeltaDiscoveryRequest, ReceivedResponse>;
  readonly #messages: AsyncIterator<ReceivedResponse>;
  /** Headers have come: with istiod together with the first message. */
  #begun = false;

  constructor(channel: Client, metadata: Metadata) {
    const { path, requestSerialize } = deltaDiscoveryMethod;
    this.#channel = channel;
    this.#call = channel.makeBidiStreamRequest(path, requestSerialize, receive, metadata);
    this.#call.on("metadata", () => {
      this.#begun = true;
    });
    // Told by the iterator to whoever reads; here for the time when nobody does.
    this.#call.on("error", () => {});
    this.#messages = this.#call[Symbol.asyncIterator]();
  }

  send(request: DeltaDiscoveryRequest): void {
    this.#call.write(request);
  }

  async next(): Promise<ReceivedResponse | undefined> {
    try {
      const { done, value } = await this.#messages.next();
      return done === true ? undefined : value;
    } catch (cause) {
      const { code, details } = cause as Partial<ServiceError>;
      const message = details === undefined ? errorText(cause) : plainDetails(details);
      throw new DiscoveryError(this.#begun ? "stream" : "connection", message, {
        status: STATUS_NAMES[code ?? status.UNKNOWN] ?? "Unknown",
        cause,
      });
    }
  }

  close(): void {
    this.#call.cancel();
    this.#channel.close();
  }
}

function receive(bytes: Buffer): ReceivedResponse {
  const response = decodeDeltaResponse(bytes);
  let byteCount = 0;
  for (const { resource } of response.resources) byteCount += resource?.value.length ?? 0;
  return { response, byteCount };
}

/** `UNAUTHENTICATED` → `Unauthenticated`: as the original writes them. */
const STATUS_NAMES: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(status)
    .filter(([, code]) => typeof code === "number")
    .map(([name, code]) => [
      code,
      name
        .toLowerCase()
        .split("_")
        .map((word) => word.charAt(0).toUpperCase() + word.slice(1))
        .join(""),
    ]),
);
