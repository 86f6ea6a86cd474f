/**
 * One conversation with the node agent: our hello, then exactly one acknowledgement for each of its
 * messages, in order, and nothing else. What the messages mean is decided by the reconciler.
 *
 * @see spec data-path 11.3, 11.4.
 */
import { closeSync } from "node:fs";
import { NetError } from "../net/net-error.ts";
import { Netns } from "../net/netns.ts";
import type { NativePacket } from "../net/seqpacket.ts";
import { invariant } from "../runtime/invariant.ts";
import type { Logger } from "../telemetry/logger.ts";
import { WireError } from "../wire/wire-error.ts";
import {
  decodeZdsRequest,
  encodeZdsAck,
  encodeZdsHello,
  type ZdsRequest,
} from "../wire/zds-message.ts";
import { detailedText, InpodError, nackText } from "./inpod-error.ts";
import type { WorkloadReconciler } from "./workload-reconciler.ts";
import type { ZdsConnection } from "./zds-connection.ts";

/** What the original says about ancillary data that should or should not be there. */
const FD_MISSING = "No control message";
const FD_UNEXPECTED = "Unexpected control message";

export interface ReceivedRequest {
  readonly request: ZdsRequest;
  /** Only with `add`; belongs to the caller. */
  readonly netnsFd: number | undefined;
}

/**
 * Takes the packet's descriptors; all are closed when the packet is refused.
 *
 * @throws InpodError `read`.
 */
export function readRequest(packet: NativePacket): ReceivedRequest {
  try {
    if (packet.truncated) throw new InpodError("read", "received truncated message");
    if (packet.fds.length > 1) {
      throw new InpodError("read", `received ${packet.fds.length} descriptors, expected one`);
    }
    const request = decodeRequest(packet.data);
    const netnsFd = packet.fds[0];
    if (request.kind === "add" && netnsFd === undefined) throw new InpodError("read", FD_MISSING);
    if (request.kind !== "add" && netnsFd !== undefined) {
      throw new InpodError("read", FD_UNEXPECTED);
    }
    return { request, netnsFd };
  } catch (error) {
    for (const fd of packet.fds) closeSync(fd);
    throw error;
  }
}

function decodeRequest(bytes: Uint8Array): ZdsRequest {
  try {
    return decodeZdsRequest(bytes);
  } catch (cause) {
    if (!(cause instanceof WireError)) throw cause;
    throw new InpodError("read", cause.message, { cause });
  }
}

export class ZdsSession {
  readonly #connection: ZdsConnection;
  readonly #reconciler: WorkloadReconciler;
  readonly #log: Logger;
  #messageCount = 0;

  constructor(
    deps: {
      readonly reconciler: WorkloadReconciler;
      /** Target `ztunnel::inpod::workloadmanager`. */
      readonly log: Logger;
    },
    connection: ZdsConnection,
  ) {
    this.#reconciler = deps.reconciler;
    this.#log = deps.log;
    this.#connection = connection;
  }

  /** How many messages were answered. */
  get messageCount(): number {
    return this.#messageCount;
  }

  /**
   * Talks until the agent closes. Closes the connection in every case.
   *
   * @throws the signal's reason; InpodError `read` or `protocol`, after the agent was told; what the
   *   system says when the connection broke.
   */
  async run(signal: AbortSignal): Promise<void> {
    try {
      this.#connection.send(encodeZdsHello());
      for (;;) {
        const packet = await this.#connection.receive(signal);
        if (packet === undefined) return;
        this.#connection.send(encodeZdsAck(await this.#answer(packet)));
        this.#messageCount++;
      }
    } finally {
      this.#connection.close();
    }
  }

  /** @returns the error of the acknowledgement, empty for success. */
  async #answer(packet: NativePacket): Promise<string> {
    try {
      await this.#apply(readRequest(packet));
      return "";
    } catch (error) {
      if (!(error instanceof InpodError)) throw error;
      if (error.code === "start") return nackText(error);
      const step = error.code === "read" ? "read" : "process";
      this.#log.write("error", `failed to ${step} message: ${detailedText(error)}`);
      this.#connection.send(encodeZdsAck(nackText(error)));
      throw error;
    }
  }

  async #apply({ request, netnsFd }: ReceivedRequest): Promise<void> {
    switch (request.kind) {
      case "add":
        invariant(netnsFd !== undefined, "an add that was read has its descriptor");
        return this.#reconciler.add(request.uid, request.workload, netnsOf(netnsFd));
      case "keep":
        return this.#reconciler.keep(request.uid);
      case "del":
        return this.#reconciler.del(request.uid);
      case "snapshot-sent":
        return this.#reconciler.snapshotSent();
    }
  }
}

/** Refused like a pod that can't be started: the agent's other pods are none the worse for it. */
function netnsOf(fd: number): Netns {
  try {
    return new Netns(fd);
  } catch (cause) {
    if (!(cause instanceof NetError)) throw cause;
    throw new InpodError("start", cause.message, { cause });
  }
}
