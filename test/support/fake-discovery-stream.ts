/** A discovery stream whose server is the test. */
import {
  ADDRESS_TYPE,
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponse,
} from "../../src/wire/delta-discovery.ts";
import {
  DiscoveryError,
  type DiscoveryStream,
  type ReceivedResponse,
} from "../../src/xds/discovery-transport.ts";

const CLOSED = new DiscoveryError("stream", "closed by us", { status: "Cancelled" });

export class FakeDiscoveryStream implements DiscoveryStream {
  readonly sent: DeltaDiscoveryRequest[] = [];
  closed = false;
  #waiting: PromiseWithResolvers<ReceivedResponse | undefined> | undefined;
  #ready: ReceivedResponse[] = [];

  send(request: DeltaDiscoveryRequest): void {
    this.sent.push(request);
  }

  next(): Promise<ReceivedResponse | undefined> {
    const ready = this.#ready.shift();
    if (ready !== undefined) return Promise.resolve(ready);
    if (this.closed) return Promise.reject(CLOSED);
    this.#waiting = Promise.withResolvers();
    return this.#waiting.promise;
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.fail(CLOSED);
  }

  answer(fields: Partial<DeltaDiscoveryResponse>): void {
    const response = {
      systemVersionInfo: "",
      resources: [],
      typeUrl: ADDRESS_TYPE,
      nonce: "n",
      removedResources: [],
      ...fields,
    };
    this.#deliver({ response, byteCount: 7 });
  }

  end(): void {
    this.#waiting?.resolve(undefined);
    this.#waiting = undefined;
  }

  fail(error: Error): void {
    this.#waiting?.reject(error);
    this.#waiting = undefined;
  }

  #deliver(received: ReceivedResponse): void {
    if (this.#waiting === undefined) this.#ready.push(received);
    else this.#waiting.resolve(received);
    this.#waiting = undefined;
  }
}
