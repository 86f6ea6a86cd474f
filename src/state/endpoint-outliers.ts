/**
 * Endpoints that could not be reached several times in a row are left out of the choice for a while:
 * Envoy's outlier detection with what a proxy of connections sees, which is whether they come about.
 * What is known is this thread's own; it costs nothing per connection as long as none fails.
 */
import { type Service, serviceKey } from "../mesh/service.ts";
import type { Clock, Timer } from "../runtime/clock.ts";
import type { ChosenEndpoint } from "./mesh-state.ts";

/** Plain data: it is sent to worker threads. */
export interface OutlierOptions {
  /** Connects in a row that fail until an endpoint is left out; at least 1. */
  readonly consecutiveFailures: number;
  /** Failures that are further apart are not in a row. */
  readonly windowMs: number;
  /** The first time; as much more each further time, until it stayed for as long as it was left out. */
  readonly baseEjectionMs: number;
  readonly ejectionMaxMs: number;
  /** Share of a service's endpoints that may be left out at a time; one may be in any case. */
  readonly ejectionMaxPercent: number;
}

/** An endpoint that is left out. Survives `structuredClone`. */
export interface Outlier {
  /** `namespace/hostname`. */
  readonly service: string;
  /** Of the service. */
  readonly port: number;
  readonly uid: string;
  /** `namespace/name`. */
  readonly workload: string;
  /** Connects in a row that failed. */
  readonly failures: number;
  readonly ejectionMs: number;
  /** Wall clock, milliseconds since the epoch. */
  readonly until: number;
}

/** As one data thread sees it. */
export interface ThreadOutlier extends Outlier {
  readonly thread: string;
}

export interface OutlierChange {
  readonly kind: "ejected" | "returned";
  readonly outlier: Outlier;
}

/** Whom a choice of endpoints passes over while others are there. */
export interface OutlierView {
  /** @param port of the service. @returns uids; `undefined`: nobody. */
  leftOut(service: Service, port: number): ReadonlySet<string> | undefined;
}

export interface EndpointOutliersDeps {
  readonly clock: Clock;
  readonly changed: (change: OutlierChange) => void;
}

/** What is remembered of an endpoint that failed. Times are monotonic milliseconds. */
interface Standing {
  /** In a row. */
  failures: number;
  /** When the last of them was. */
  failedAt: number;
  /** How often it was left out without staying long enough in between. */
  ejections: number;
  returnedAt: number;
  /** While it is left out. */
  current: { readonly outlier: Outlier; readonly timer: Timer } | undefined;
}

export class EndpointOutliers implements OutlierView {
  readonly #deps: EndpointOutliersDeps;
  readonly #options: OutlierOptions;
  /** Those that failed last come last. */
  readonly #standings = new Map<string, Standing>();
  /** Uids by service and port; never an empty set. */
  readonly #leftOut = new Map<string, Set<string>>();

  constructor(deps: EndpointOutliersDeps, options: OutlierOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  leftOut(service: Service, port: number): ReadonlySet<string> | undefined {
    return this.#leftOut.size === 0
      ? undefined
      : this.#leftOut.get(portKey(serviceKey(service), port));
  }

  /** A connection to it came about. One that was left out is taken back. */
  succeeded(endpoint: ChosenEndpoint): void {
    if (this.#standings.size === 0) return;
    const key = endpointKey(endpoint);
    const standing = key === undefined ? undefined : this.#standings.get(key);
    if (key === undefined || standing === undefined) return;
    if (standing.current !== undefined) this.#takeBack(standing, standing.current);
    standing.failures = 0;
    if (standing.ejections === 0) this.#standings.delete(key);
  }

  /** A connection to it did not come about, for what is its own fault. */
  failed(endpoint: ChosenEndpoint): void {
    const key = endpointKey(endpoint);
    if (key === undefined) return;
    const now = this.#deps.clock.monotonic();
    const standing = this.#standings.get(key) ?? {
      failures: 0,
      failedAt: now,
      ejections: 0,
      returnedAt: now,
      current: undefined,
    };
    this.#standings.delete(key);
    this.#forgetOld(now);
    this.#standings.set(key, standing);
    // It was tried before it was left out, or because nobody else was there.
    if (standing.current !== undefined) return;
    const isInRow = now - standing.failedAt <= this.#options.windowMs;
    standing.failures = isInRow ? standing.failures + 1 : 1;
    standing.failedAt = now;
    if (standing.failures < this.#options.consecutiveFailures) return;
    if (this.#canSpare(endpoint)) this.#leaveOut(endpoint, standing, now);
  }

  /** Never the last one, and of those that the mesh still has only a share. */
  #canSpare({ service: known, servicePort, workload }: ChosenEndpoint): boolean {
    if (known?.endpoints.has(workload.uid) !== true) return false;
    const { service, endpoints } = known;
    const { size } = endpoints;
    const share = Math.max(1, Math.floor((size * this.#options.ejectionMaxPercent) / 100));
    const out = [...(this.leftOut(service, servicePort) ?? [])].filter((uid) => endpoints.has(uid));
    return out.length < Math.min(share, size - 1);
  }

  #leaveOut(endpoint: ChosenEndpoint, standing: Standing, now: number): void {
    const { service, servicePort: port, workload } = endpoint;
    if (service === undefined) return;
    if (now - standing.returnedAt >= this.#ejectionMs(standing)) standing.ejections = 0;
    standing.ejections++;
    const ejectionMs = this.#ejectionMs(standing);
    const { clock, changed } = this.#deps;
    const outlier: Outlier = {
      service: serviceKey(service.service),
      port,
      uid: workload.uid,
      workload: `${workload.namespace}/${workload.name}`,
      failures: standing.failures,
      ejectionMs,
      until: clock.now() + ejectionMs,
    };
    const current = {
      outlier,
      timer: clock.after(ejectionMs, () => this.#takeBack(standing, current)),
    };
    standing.current = current;
    const place = portKey(outlier.service, port);
    const out = this.#leftOut.get(place);
    if (out === undefined) this.#leftOut.set(place, new Set([workload.uid]));
    else out.add(workload.uid);
    changed({ kind: "ejected", outlier });
  }

  /** On trial: its next failure is one too many, unless a connection comes about before. */
  #takeBack(standing: Standing, { outlier, timer }: NonNullable<Standing["current"]>): void {
    timer.cancel();
    standing.current = undefined;
    standing.failures = this.#options.consecutiveFailures - 1;
    standing.failedAt = standing.returnedAt = this.#deps.clock.monotonic();
    const place = portKey(outlier.service, outlier.port);
    const out = this.#leftOut.get(place);
    out?.delete(outlier.uid);
    if (out?.size === 0) this.#leftOut.delete(place);
    this.#deps.changed({ kind: "returned", outlier });
  }

  #ejectionMs({ ejections }: Standing): number {
    const { baseEjectionMs, ejectionMaxMs } = this.#options;
    return Math.min(ejectionMaxMs, baseEjectionMs * ejections);
  }

  /** What neither a run of failures nor the time of an ejection depends on any more. */
  #forgetOld(now: number): void {
    const { windowMs, ejectionMaxMs } = this.#options;
    for (const [key, { current, failedAt }] of this.#standings) {
      if (current !== undefined || now - failedAt <= Math.max(windowMs, ejectionMaxMs)) return;
      this.#standings.delete(key);
    }
  }
}

function portKey(service: string, port: number): string {
  return `${service}:${port}`;
}

/** @returns `undefined` for what is no endpoint of a service: nobody could take its place. */
function endpointKey({ service, servicePort, workload }: ChosenEndpoint): string | undefined {
  return service && `${portKey(serviceKey(service.service), servicePort)} ${workload.uid}`;
}
