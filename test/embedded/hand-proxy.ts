import type { TestContext } from "node:test";
import { SeqpacketConnection } from "../../src/inpod/zds-connection.ts";
import { native } from "../../src/net/native.ts";
import { Netns } from "../../src/net/netns.ts";
import {
  decodeZdsRequest,
  encodeZdsAck,
  encodeZdsHello,
  type ZdsRequest,
} from "../../src/wire/zds-message.ts";

export interface HandedRequest {
  readonly request: ZdsRequest;
  /** Keys of the namespaces that came along; their descriptors are closed already. */
  readonly netnsKeys: readonly string[];
}

/** A proxy's end, moved by hand. */
export class HandProxy {
  readonly #connection: SeqpacketConnection;
  /** For all of a test; a busy machine is slow. */
  readonly #signal = AbortSignal.timeout(60_000);

  constructor(t: TestContext, path: string, hello: Uint8Array = encodeZdsHello()) {
    this.#connection = SeqpacketConnection.dial(native, path);
    t.after(() => this.#connection.close());
    this.#connection.send(hello);
  }

  /** The next request; `undefined` when the agent hung up. */
  async next(): Promise<HandedRequest | undefined> {
    const packet = await this.#connection.receive(this.#signal);
    if (packet === undefined) return undefined;
    const netnsKeys = packet.fds.map((fd) => {
      const netns = new Netns(fd);
      netns.close();
      return netns.key;
    });
    return { request: decodeZdsRequest(packet.data), netnsKeys };
  }

  answer(error = ""): void {
    this.#connection.send(encodeZdsAck(error));
  }

  /** Takes one request, says yes, and gives its kind and uid. */
  async agree(): Promise<string> {
    const next = await this.next();
    this.answer();
    if (next === undefined) return "end";
    const uid = "uid" in next.request ? ` ${next.request.uid}` : "";
    return `${next.request.kind}${uid}${next.netnsKeys.length > 0 ? " +fd" : ""}`;
  }

  close(): void {
    this.#connection.close();
  }
}
