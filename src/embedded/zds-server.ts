/**
 * The node agent's end of ZDS: tells every proxy that connects which pods are on this node, then
 * what changes. Each connection has at most one unanswered message.
 *
 * Stricter than istio-cni in one point: an answer that does not come in time ends the connection,
 * because a late one would be taken for the answer to the next message.
 *
 * @see spec data-path 11.3.
 */
import { closeSync, rmSync } from "node:fs";
import { SeqpacketConnection, type ZdsConnection } from "../inpod/zds-connection.ts";
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { Native, NativeWatch } from "../net/native.ts";
import type { Clock } from "../runtime/clock.ts";
import { errorText } from "../runtime/error-text.ts";
import { systemProblem } from "../runtime/system-problem.ts";
import type { Logger } from "../telemetry/logger.ts";
import {
  decodeZdsAck,
  decodeZdsHello,
  encodeZdsRequest,
  type ZdsRequest,
} from "../wire/zds-message.ts";
import { removeAbandonedSocket } from "./abandoned-socket.ts";

/** istio-cni's, for the hello and for every answer. */
const ANSWER_MS_MAX = 5_000;

/** A node has one proxy, two while one replaces the other. */
const BACKLOG = 16;

export interface ZdsServerDeps {
  readonly native: Native;
  readonly clock: Clock;
  readonly log: Logger;
}

interface Pod {
  readonly workload: EnrolledWorkload;
  readonly netnsFd: number;
}

export class ZdsServer {
  readonly #deps: ZdsServerDeps;
  readonly #path: string;
  readonly #listenFd: number;
  readonly #watch: NativeWatch;
  readonly #pods = new Map<string, Pod>();
  /** Those that said hello, oldest first. */
  readonly #peers: ZdsPeer[] = [];
  readonly #closing = new AbortController();

  /**
   * Listens at once; takes over a socket file that nobody serves any more.
   *
   * @throws Error that names the path: another agent serves it, say.
   */
  constructor(deps: ZdsServerDeps, options: { readonly path: string }) {
    this.#deps = deps;
    this.#path = options.path;
    this.#listenFd = listenAfresh(deps.native, options.path);
    this.#watch = deps.native.watchReadable(this.#listenFd, () => this.#accept());
  }

  /** How many proxies are in conversation with us. */
  get proxyCount(): number {
    return this.#peers.length;
  }

  /**
   * Announces the pod to the proxy that connected last, and to all that connect later.
   *
   * @param netnsFd stays the caller's; open until {@link del} has settled.
   * @throws Error with the proxy's reason, or that none is connected. The pod stays announced.
   */
  async add(workload: EnrolledWorkload, netnsFd: number): Promise<void> {
    const pod: Pod = { workload, netnsFd };
    this.#pods.set(workload.uid, pod);
    const peer = this.#peers.at(-1);
    if (peer === undefined) throw new Error(`no ztunnel is connected to ${this.#path}`);
    const error = await peer.ask(addRequest(pod), netnsFd);
    if (error !== "") throw new Error(error);
  }

  /** Takes the pod back from all proxies; settles when they have answered or are gone. */
  async del(uid: string): Promise<void> {
    this.#pods.delete(uid);
    const asked = await Promise.allSettled(
      this.#peers.map((peer) => peer.ask({ kind: "del", uid })),
    );
    for (const answer of asked) {
      const error = answer.status === "fulfilled" ? answer.value : String(answer.reason);
      if (error !== "") this.#deps.log.write("warn", `delete of ${uid} failed: ${error}`);
    }
  }

  /** Hangs up on everybody and removes the socket file. Idempotent. */
  close(): void {
    if (this.#closing.signal.aborted) return;
    this.#watch.close();
    closeSync(this.#listenFd);
    rmSync(this.#path, { force: true });
    this.#closing.abort(new Error("the node agent is closing"));
  }

  #accept(): void {
    const { native } = this.#deps;
    for (let fd = native.accept(this.#listenFd); fd !== undefined; ) {
      void this.#serve(new ZdsPeer(new SeqpacketConnection(native, fd), this.#deps.clock));
      fd = native.accept(this.#listenFd);
    }
  }

  /** Never rejects. */
  async #serve(peer: ZdsPeer): Promise<void> {
    const { log } = this.#deps;
    try {
      await peer.greeted(this.#closing.signal);
      const ended = peer.listen(this.#closing.signal);
      this.#peers.push(peer);
      log.write("info", "ztunnel connected");
      // Adds made from now on queue up behind the snapshot.
      const snapshot = this.#sendSnapshot(peer, [...this.#pods.values()]);
      await Promise.all([snapshot, ended]);
      log.write("info", "ztunnel disconnected");
    } catch (error) {
      const reason = errorText(error);
      log.write("warn", `ztunnel connection ended: ${reason}`);
    } finally {
      peer.close();
      const at = this.#peers.indexOf(peer);
      if (at >= 0) this.#peers.splice(at, 1);
    }
  }

  async #sendSnapshot(peer: ZdsPeer, pods: readonly Pod[]): Promise<void> {
    const asked = pods.map(async (pod) => {
      const error = await peer.ask(addRequest(pod), pod.netnsFd);
      if (error === "") return;
      this.#deps.log.write("warn", `pod ${pod.workload.uid} refused: ${error}`);
    });
    asked.push(peer.ask({ kind: "snapshot-sent" }).then(() => {}));
    await Promise.all(asked);
  }
}

/** One proxy. */
class ZdsPeer {
  readonly #connection: ZdsConnection;
  readonly #clock: Clock;
  readonly #gone = new AbortController();
  /** Who waits for the answer to the one message that is out. */
  #answered: ((ack: Uint8Array) => void) | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  /** Takes the connection. */
  constructor(connection: ZdsConnection, clock: Clock) {
    this.#connection = connection;
    this.#clock = clock;
  }

  /** @throws Error when no hello of version 1 comes in time. */
  async greeted(signal: AbortSignal): Promise<void> {
    const deadline = new AbortController();
    const timer = this.#clock.after(ANSWER_MS_MAX, () =>
      deadline.abort(new Error(`no hello within ${ANSWER_MS_MAX} ms`)),
    );
    try {
      const packet = await this.#connection.receive(AbortSignal.any([signal, deadline.signal]));
      if (packet === undefined) throw new Error("closed before its hello");
      for (const fd of packet.fds) closeSync(fd);
      const version = decodeZdsHello(packet.data);
      if (version !== 1) throw new Error(`hello of version ${version}, expected 1`);
    } finally {
      timer.cancel();
    }
  }

  /**
   * Hands answers to those who wait for them until the proxy closes.
   *
   * @throws Error for a packet that nobody asked for; whatever {@link close} or the system says.
   */
  async listen(signal: AbortSignal): Promise<void> {
    try {
      for (;;) {
        const packet = await this.#connection.receive(AbortSignal.any([signal, this.#gone.signal]));
        if (packet === undefined) return;
        for (const fd of packet.fds) closeSync(fd);
        if (this.#answered === undefined) throw new Error("unsolicited packet");
        this.#answered(packet.data);
      }
    } finally {
      this.#gone.abort(new Error("connection to ztunnel lost"));
    }
  }

  /**
   * Sends one message when all earlier ones are answered.
   *
   * @returns the error of the acknowledgement, empty for success.
   * @throws Error when the connection ends first, which it does when no answer comes in time.
   */
  ask(request: ZdsRequest, passFd?: number): Promise<string> {
    const answer = this.#turn.then(() => this.#exchange(encodeZdsRequest(request), passFd));
    // The failure belongs to who asked; those behind fail by themselves.
    this.#turn = answer.catch(() => {});
    return answer;
  }

  close(): void {
    this.#gone.abort(new Error("connection to ztunnel lost"));
    this.#connection.close();
  }

  async #exchange(data: Uint8Array, passFd: number | undefined): Promise<string> {
    const { signal } = this.#gone;
    signal.throwIfAborted();
    const ack = Promise.withResolvers<Uint8Array>();
    const lost = (): void => ack.reject(signal.reason);
    signal.addEventListener("abort", lost, { once: true });
    this.#answered = ack.resolve;
    const timer = this.#clock.after(ANSWER_MS_MAX, () =>
      this.#gone.abort(new Error(`no answer within ${ANSWER_MS_MAX} ms`)),
    );
    try {
      this.#connection.send(data, passFd);
      return decodeZdsAck(await ack.promise).error;
    } catch (error) {
      this.#gone.abort(error);
      throw error;
    } finally {
      timer.cancel();
      this.#answered = undefined;
      signal.removeEventListener("abort", lost);
    }
  }
}

function addRequest({ workload }: Pod): ZdsRequest {
  const { uid, name, namespace, serviceAccount } = workload;
  return { kind: "add", uid, workload: { name, namespace, serviceAccount } };
}

function listenAfresh(native: Native, path: string): number {
  try {
    closeSync(native.connectSeqpacket(path));
  } catch {
    // Nobody there.
    removeAbandonedSocket(path);
  }
  try {
    return native.listenSeqpacket(path, BACKLOG);
  } catch (cause) {
    throw new Error(`can't listen on ${path}: ${systemProblem(cause)}`, { cause });
  }
}
