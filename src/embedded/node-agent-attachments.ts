/**
 * What istio-cni does on a Kubernetes node, for any network namespace of a plain Linux machine:
 * installs redirect rules, announces the workload over ZDS, and takes both back. It keeps nothing
 * on disk: when it ends, in whatever way, all rules go.
 *
 * @see spec data-path 11.8 for the order of steps.
 */
import { statSync } from "node:fs";
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { Native } from "../net/native.ts";
import { Netns, ownNetns } from "../net/netns.ts";
import type { Clock, Timer } from "../runtime/clock.ts";
import { errorText } from "../runtime/error-text.ts";
import type { Logger } from "../telemetry/logger.ts";
import { NodeAgentError } from "./node-agent-error.ts";
import { NodeAgentJanitor } from "./node-agent-janitor.ts";
import type { RedirectOptions } from "./redirect-options.ts";
import { installRedirect, type RedirectStanding, removeRedirect } from "./redirect-rules.ts";
import type { RulesChoice } from "./rules-backend.ts";
import { ZdsServer } from "./zds-server.ts";

/** How often it is looked whether attached namespaces still have their names. */
const PRESENCE_MS = 1_000;

export interface AttachRequest {
  /** `/run/netns/NAME` or `/proc/PID/ns/net`; when it vanishes the workload is deleted. */
  readonly netnsPath: string;
  readonly workload: EnrolledWorkload;
  readonly redirect: RedirectOptions;
}

export interface AttachedWorkload {
  readonly workload: EnrolledWorkload;
  readonly netnsPath: string;
  readonly redirect: RedirectOptions;
  readonly standing: RedirectStanding;
}

interface Attachment extends AttachedWorkload {
  readonly netns: Netns;
}

export interface AttachmentsDeps {
  readonly native: Native;
  readonly clock: Clock;
  readonly log: Logger;
  /** The agent can't go on; {@link Attachments.close} it. */
  readonly failed: (reason: string) => void;
}

export interface AttachmentsOptions {
  /** `INPOD_UDS` */
  readonly zdsPath: string;
  readonly rules: RulesChoice;
}

export class Attachments {
  readonly #deps: AttachmentsDeps;
  readonly #rules: RulesChoice;
  readonly #server: ZdsServer;
  readonly #janitor: NodeAgentJanitor;
  /** Key is the uid. */
  readonly #attached = new Map<string, Attachment>();
  #presence: Timer | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  /** @throws what the system says when the socket can't be served. */
  constructor(deps: AttachmentsDeps, options: AttachmentsOptions) {
    this.#deps = deps;
    this.#rules = options.rules;
    this.#server = new ZdsServer(deps, { path: options.zdsPath });
    this.#janitor = new NodeAgentJanitor(() => deps.failed("the janitor process is gone"));
    this.#watchPresence();
  }

  get proxyCount(): number {
    return this.#server.proxyCount;
  }

  get all(): readonly AttachedWorkload[] {
    return [...this.#attached.values()].map(({ workload, netnsPath, redirect, standing }) => ({
      workload,
      netnsPath,
      redirect,
      standing,
    }));
  }

  /**
   * Settles when the proxy has opened its listeners; on failure all is as before.
   *
   * @throws NodeAgentError; Error in the words of the tool or of the proxy.
   */
  attach(request: AttachRequest): Promise<AttachedWorkload> {
    return this.#inTurn(async () => {
      const netns = this.#openNetns(request);
      const { uid } = request.workload;
      try {
        await this.#janitor.keep(netns);
        const standing = await installRedirect(netns.fd, request.redirect, this.#rules);
        await this.#server.add(request.workload, netns.fd);
        const attached = { ...request, standing };
        this.#attached.set(uid, { ...attached, netns });
        const { backend, ipv6 } = standing;
        this.#deps.log.write("info", `attached ${describe(attached)}`, [
          ["rules", backend],
          ["ipv6", ipv6],
        ]);
        return attached;
      } catch (error) {
        // Otherwise the proxy would go on trying.
        await this.#server.del(uid);
        await this.#removeRules(netns);
        netns.close();
        throw error;
      }
    });
  }

  /** @throws NodeAgentError `not-attached`; Error in the words of the tool that failed. */
  detach(uid: string): Promise<AttachedWorkload> {
    return this.#inTurn(async () => {
      const attachment = this.#attached.get(uid);
      if (attachment === undefined)
        throw new NodeAgentError("not-attached", `${uid} is not attached`);
      await this.#release(attachment);
      this.#deps.log.write("info", `detached ${describe(attachment)}`);
      return attachment;
    });
  }

  /** Hangs up on the proxies and removes all rules. Workloads run on in the proxies, uncaptured. */
  close(): Promise<void> {
    return this.#inTurn(async () => {
      this.#presence?.cancel();
      this.#server.close();
      const isDone = await this.#janitor.close();
      for (const { netns } of this.#attached.values()) {
        if (!isDone) await this.#removeRules(netns);
        netns.close();
      }
      this.#attached.clear();
    });
  }

  #openNetns({ netnsPath, workload }: AttachRequest): Netns {
    if (this.#attached.has(workload.uid)) {
      throw new NodeAgentError("attached-already", `${workload.uid} is attached already`);
    }
    let netns: Netns;
    try {
      netns = Netns.open(netnsPath);
    } catch (cause) {
      const reason = errorText(cause);
      throw new NodeAgentError("no-netns", `can't open ${netnsPath}: ${reason}`, { cause });
    }
    const refusal = this.#refusal(netns);
    if (refusal === undefined) return netns;
    netns.close();
    throw new NodeAgentError("attached-already", `${netnsPath} ${refusal}`);
  }

  #refusal(netns: Netns): string | undefined {
    for (const other of this.#attached.values()) {
      if (other.netns.key === netns.key) return `is attached already as ${other.workload.uid}`;
    }
    const own = ownNetns();
    own.close();
    return own.key === netns.key ? "is the node's own network namespace" : undefined;
  }

  /** Rules first, as istio-cni does: the pod then speaks for itself while its proxy goes. */
  async #release(attachment: Attachment): Promise<void> {
    const { netns, workload } = attachment;
    await removeRedirect(netns.fd);
    await this.#server.del(workload.uid);
    this.#attached.delete(workload.uid);
    await this.#janitor.forget(netns);
    netns.close();
  }

  /** Never rejects: what can't be removed now is left to the janitor. */
  async #removeRules(netns: Netns): Promise<void> {
    try {
      await removeRedirect(netns.fd);
      await this.#janitor.forget(netns);
    } catch (error) {
      this.#deps.log.write("warn", `could not remove the redirect rules: ${error}`);
    }
  }

  #watchPresence(): void {
    this.#presence = this.#deps.clock.after(PRESENCE_MS, () => {
      const gone = [...this.#attached.values()].filter((attachment) => !isPresent(attachment));
      for (const attachment of gone) void this.#releaseGone(attachment);
      this.#watchPresence();
    });
  }

  /** Never rejects. */
  #releaseGone(attachment: Attachment): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#attached.get(attachment.workload.uid) !== attachment) return;
      this.#deps.log.write("info", `namespace is gone: ${describe(attachment)}`);
      await this.#release(attachment).catch((error: unknown) => {
        this.#deps.log.write("warn", `could not release ${describe(attachment)}: ${error}`);
      });
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work);
    // The failure belongs to who asked; the next in turn runs all the same.
    this.#turn = done.catch(() => {});
    return done;
  }
}

function isPresent({ netns, netnsPath }: Attachment): boolean {
  try {
    const { dev, ino } = statSync(netnsPath, { bigint: true });
    return netns.key === `${dev}:${ino}`;
  } catch {
    // Removed, or the process has ended.
    return false;
  }
}

function describe({ workload, netnsPath }: AttachedWorkload): string {
  return `${workload.namespace}/${workload.name} (${workload.uid}) at ${netnsPath}`;
}
