/**
 * Looks now and then which sockets each pod holds, so that a leak is seen and what passes by the mesh
 * over UDP is counted. One pod at a time, on the main thread, with a bound to what it may cost there.
 */
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { SocketCensus } from "../net/socket-census.ts";
import type { Datagrams } from "../net/udp-counters.ts";
import type { Clock, Timer } from "../runtime/clock.ts";
import { errorText } from "../runtime/error-text.ts";
import { Pace } from "../runtime/pace.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { WorkloadLauncher } from "./workload-reconciler.ts";

/** How long the thread is kept at a time. */
const SLICE_MS = 5;
/** After a look so many times its CPU time passes before the next one: 2 % of a CPU at most. */
const REST_FACTOR = 49;

/** What one look at a pod has shown. */
export interface SocketSample {
  readonly workload: EnrolledWorkload;
  /** Its name in the mesh, such as that of a Deployment. */
  readonly workloadName: string;
  /** Wall clock, milliseconds. */
  readonly at: number;
  readonly census: SocketCensus;
  /** Of the pod since the first look at it, all but DNS through its server here; they never get fewer. */
  readonly bypassing: Datagrams;
}

export interface SocketSamplerDeps {
  /** Each step is short; the descriptor is of use in the first only. */
  readonly takeCensus: (netnsFd: number | undefined) => Generator<undefined, SocketCensus>;
  /** Port: those of a workload, of its namespace, that its DNS server here has had part in. */
  readonly dnsDatagrams: (uid: string) => Promise<Datagrams>;
  readonly workloadName: (workload: EnrolledWorkload) => string;
  /** CPU time that this thread has used so far, milliseconds. */
  readonly cpuMs: () => number;
  readonly clock: Clock;
  readonly log: Logger;
}

interface SampledPod {
  readonly workload: EnrolledWorkload;
  readonly netnsFd: number | undefined;
  /** On the monotonic clock. */
  dueAt: number;
  /** What had passed by before the first look. */
  base: Datagrams | undefined;
  sample: SocketSample | undefined;
  /** Of the last look, so that it is logged once. */
  failure: string | undefined;
}

export class SocketSampler {
  readonly #deps: SocketSamplerDeps;
  readonly #intervalMs: number;
  /** Key is the uid. */
  readonly #pods = new Map<string, SampledPod>();
  #timer: Timer | undefined;
  #isLooking = false;
  #isClosed = false;
  /** On the monotonic clock. */
  #restsUntil = 0;

  /** @param options.intervalMs from one look at a pod to the next; 0: nobody is looked at. */
  constructor(deps: SocketSamplerDeps, options: { readonly intervalMs: number }) {
    this.#deps = deps;
    this.#intervalMs = options.intervalMs;
  }

  /** A launcher whose workloads are looked at while they run. */
  watching(launcher: WorkloadLauncher): WorkloadLauncher {
    return {
      startWorkload: async (workload, netnsFd) => {
        await launcher.startWorkload(workload, netnsFd);
        this.add(workload, netnsFd);
      },
      stopWorkload: (uid, drainMs) => {
        this.#pods.delete(uid);
        return launcher.stopWorkload(uid, drainMs);
      },
    };
  }

  /** @param netnsFd open while the workload runs; `undefined`: the daemon's own namespace. */
  add(workload: EnrolledWorkload, netnsFd: number | undefined): void {
    if (this.#intervalMs === 0) return;
    const dueAt = this.#deps.clock.monotonic();
    const unseen = { base: undefined, sample: undefined, failure: undefined };
    this.#pods.set(workload.uid, { workload, netnsFd, dueAt, ...unseen });
    this.#arm();
  }

  /** The last look at each pod that runs. */
  samples(): readonly SocketSample[] {
    return [...this.#pods.values()].flatMap(({ sample }) => sample ?? []);
  }

  /** Nobody is looked at any more; what was seen last stays. Idempotent. */
  close(): void {
    this.#isClosed = true;
    this.#timer?.cancel();
  }

  #arm(): void {
    if (this.#isLooking || this.#isClosed) return;
    const next = this.#next();
    if (next === undefined) return;
    const now = this.#deps.clock.monotonic();
    this.#timer?.cancel();
    this.#timer = this.#deps.clock.after(Math.max(next.dueAt, this.#restsUntil) - now, () => {
      void this.#look();
    });
  }

  /** The one that is due first. */
  #next(): SampledPod | undefined {
    let next: SampledPod | undefined;
    for (const pod of this.#pods.values()) {
      if (next === undefined || pod.dueAt < next.dueAt) next = pod;
    }
    return next;
  }

  /** Never rejects. */
  async #look(): Promise<void> {
    const pod = this.#next();
    const now = this.#deps.clock.monotonic();
    // Whoever was due may have left.
    if (pod === undefined || pod.dueAt > now) return this.#arm();
    this.#isLooking = true;
    pod.dueAt = now + this.#intervalMs;
    try {
      await this.#sample(pod);
      pod.failure = undefined;
    } catch (error) {
      this.#report(pod, errorText(error));
    }
    this.#isLooking = false;
    this.#arm();
  }

  async #sample(pod: SampledPod): Promise<void> {
    const { clock, dnsDatagrams, workloadName } = this.#deps;
    const { workload } = pod;
    const census = await this.#takeCensus(pod.netnsFd);
    // Asked after the census: a query that is in it is in the answer, too, and never taken for what passes by.
    const passing = without(allDatagrams(census), await dnsDatagrams(workload.uid));
    pod.base ??= passing;
    pod.sample = {
      workload,
      workloadName: workloadName(workload),
      at: clock.now(),
      census,
      bypassing: atLeast(without(passing, pod.base), pod.sample?.bypassing),
    };
  }

  async #takeCensus(netnsFd: number | undefined): Promise<SocketCensus> {
    const { clock, cpuMs, takeCensus } = this.#deps;
    const steps = takeCensus(netnsFd);
    const pace = new Pace(clock, SLICE_MS);
    let tookMs = 0;
    try {
      for (;;) {
        const before = cpuMs();
        const step = steps.next();
        tookMs += cpuMs() - before;
        if (step.done) return step.value;
        if (pace.isOver) await pace.rest();
      }
    } finally {
      this.#restsUntil = clock.monotonic() + tookMs * REST_FACTOR;
    }
  }

  #report(pod: SampledPod, failure: string): void {
    const { uid, namespace, name } = pod.workload;
    pod.sample = undefined;
    if (this.#isClosed || this.#pods.get(uid) !== pod || failure === pod.failure) return;
    pod.failure = failure;
    this.#deps.log
      .target("ztunnel::inpod::sockets")
      .write("warn", `failed to look at the sockets of ${namespace}/${name}: ${failure}`);
  }
}

function allDatagrams({ udp: { ipv4, ipv6 } }: SocketCensus): Datagrams {
  return { received: ipv4.received + ipv6.received, sent: ipv4.sent + ipv6.sent };
}

function without(all: Datagrams, some: Datagrams): Datagrams {
  return { received: all.received - some.received, sent: all.sent - some.sent };
}

function atLeast(some: Datagrams, least: Datagrams = { received: 0, sent: 0 }): Datagrams {
  return {
    received: Math.max(some.received, least.received),
    sent: Math.max(some.sent, least.sent),
  };
}
