/**
 * The certificates of the workloads on this node: fetched once however many wait, renewed at half
 * their life, kept while a renewal fails, forgotten when the last workload with the identity goes.
 *
 * An identity is in one of three places: waiting for its time (a timer), waiting for a place at the
 * authority (a queue for each priority), or on its way there.
 *
 * @see spec control-plane 5.6 for the rules and texts.
 */
import { formatSpiffeId, type Identity } from "../mesh/identity.ts";
import type { WorkloadCertificate } from "../mesh/workload-certificate.ts";
import type { Clock, Timer } from "../runtime/clock.ts";
import type { Random } from "../runtime/random.ts";
import { formatTimestamp } from "../runtime/timestamp.ts";
import type { Logger } from "../telemetry/logger.ts";
import { type CertificateSummary, summarizeCertificate } from "../tls/certificate-summary.ts";
import { IdentityError } from "./identity-error.ts";
import { PrefetchQueue } from "./prefetch-queue.ts";
import { RetrySchedule, renewalAt } from "./renewal-schedule.ts";

/** How urgent a request is; renewals are less urgent than both. */
export type RequestPriority = "real-time" | "warmup";

/** One entry of `certificates` in `/config_dump` (spec control-plane 7.2). */
export interface CertificateEntry {
  /** Leaf and intermediates. */
  readonly certChain: readonly CertificateSummary[];
  /** SPIFFE ID. */
  readonly identity: string;
  readonly rootCerts: readonly CertificateSummary[];
  /** `Initializing`, `Available` or `Unavailable: <error>`. */
  readonly state: string;
}

/** Identities by state: the names are those of the dump. */
export type CertificateCounts = Readonly<
  Record<"Initializing" | "Available" | "Unavailable", number>
>;

export interface CertificateMetrics {
  /** A request has ended. @param error `undefined`: with a certificate that can be used. */
  ended(error: Error | undefined): void;
}

export interface CertificateCacheDeps {
  /** Makes a request, has it signed and checks the answer; see certificate-order.ts. */
  readonly fetch: (identity: Identity) => Promise<WorkloadCertificate>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Sees each new certificate; see clock-skew.ts. */
  readonly skew: { observe(certificate: WorkloadCertificate): void };
  readonly metrics: CertificateMetrics;
}

export interface CertificateCacheOptions {
  /** How long a connection waits for a first certificate. */
  readonly waitMs: number;
}

type Priority = RequestPriority | "background";

/** Most urgent first. */
const PRIORITIES: readonly Priority[] = ["real-time", "warmup", "background"];

/** Requests on their way at once; istiod limits what one client may have. */
const IN_FLIGHT_MAX = 8;

/** Where a clock is wrong a certificate may come all but expired. Its renewal must not become a loop. */
const RENEWAL_MS_MIN = 1000;

type CellState =
  | { readonly kind: "initializing" }
  | { readonly kind: "available"; readonly certificate: WorkloadCertificate }
  | { readonly kind: "unavailable"; readonly error: Error };

const STATE_NAMES = {
  initializing: "Initializing",
  available: "Available",
  unavailable: "Unavailable",
} as const;

interface Cell {
  readonly id: string;
  readonly identity: Identity;
  state: CellState;
  /** Of the next attempt. */
  priority: Priority;
  /** The next result, for whoever asked while there was none; the first, or the one after an expiry. */
  settled: PromiseWithResolvers<WorkloadCertificate>;
  /** Since the first of the failures that no success has followed. */
  retries: RetrySchedule | undefined;
  /** Fires when the next attempt is due. */
  timer: Timer | undefined;
  /** The last attempt failed because nobody answered. */
  isUnanswered: boolean;
}

export class CertificateCache {
  readonly #deps: CertificateCacheDeps;
  readonly #waitMs: number;
  readonly #prefetch: PrefetchQueue;
  /** Key is the SPIFFE ID, here and below. */
  readonly #cells = new Map<string, Cell>();
  /** Due now and waiting for a place; the earliest due first. */
  readonly #due: Readonly<Record<Priority, Set<Cell>>> = {
    "real-time": new Set(),
    warmup: new Set(),
    background: new Set(),
  };
  readonly #inFlight = new Set<string>();
  readonly #listeners = new Set<(certificate: WorkloadCertificate) => void>();
  #closed = false;

  constructor(deps: CertificateCacheDeps, options: CertificateCacheOptions) {
    this.#deps = deps;
    this.#waitMs = options.waitMs;
    this.#prefetch = new PrefetchQueue({
      fetch: (identity) => this.certificate(identity, "warmup"),
      log: deps.log,
    });
  }

  /**
   * The certificate that is held, or the first one when it comes; one that has expired is as none. An
   * identity whose last attempt failed answers with that error at once; retries go on by themselves.
   * Who asks in real time waits no longer than a connection can; the fetch goes on for the next one.
   *
   * @throws IdentityError or TlsError, of the attempt; IdentityError `timeout`, `forgotten` or
   *   `closed`.
   */
  async certificate(identity: Identity, priority: RequestPriority): Promise<WorkloadCertificate> {
    if (this.#closed) throw new IdentityError("closed", "certificates are no longer handed out");
    const id = formatSpiffeId(identity);
    const cell = this.#cells.get(id) ?? this.#add(id, identity, priority);
    this.#checkExpiry(cell);
    switch (cell.state.kind) {
      case "available":
        return cell.state.certificate;
      case "unavailable":
        throw cell.state.error;
      case "initializing":
        this.#raise(cell, priority);
        return priority === "real-time" ? this.#within(cell) : cell.settled.promise;
    }
  }

  /** Fetches it when nothing urgent waits; failures are logged. */
  prefetch(identity: Identity): void {
    if (!this.#closed) this.#prefetch.add(identity);
  }

  /**
   * Nobody needs the service account's identities any longer, in whatever trust domain: those who
   * wait for one get IdentityError `forgotten`.
   *
   * @returns what was held or waited for.
   */
  forget(account: Pick<Identity, "namespace" | "serviceAccount">): readonly Identity[] {
    const isOfAccount = ({ namespace, serviceAccount }: Identity): boolean =>
      namespace === account.namespace && serviceAccount === account.serviceAccount;
    this.#prefetch.remove(isOfAccount);
    const cells = [...this.#cells.values()].filter((cell) => isOfAccount(cell.identity));
    for (const cell of cells) {
      this.#drop(cell, new IdentityError("forgotten", "the identity is no longer needed"));
    }
    return cells.map((cell) => cell.identity);
  }

  /**
   * The authority answers again: who failed because it did not tries now, instead of up to 150 s
   * later.
   */
  retryUnanswered(): void {
    for (const cell of this.#cells.values()) {
      if (!cell.isUnanswered) continue;
      cell.timer?.cancel();
      this.#enqueue(cell);
    }
  }

  /** Called with each new certificate, the first of an identity too. @returns unsubscribe. */
  onRenewed(listener: (certificate: WorkloadCertificate) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  counts(): CertificateCounts {
    const counts = { Initializing: 0, Available: 0, Unavailable: 0 };
    for (const { state } of this.#cells.values()) counts[STATE_NAMES[state.kind]]++;
    return counts;
  }

  /** Sorted by identity. */
  dump(): readonly CertificateEntry[] {
    return [...this.#cells.values()].sort((a, b) => (a.id < b.id ? -1 : 1)).map(describe);
  }

  /** Ends timers and renewals; those who wait get IdentityError `closed`. Idempotent. */
  close(): void {
    this.#closed = true;
    this.#prefetch.close();
    const error = new IdentityError("closed", "certificates are no longer handed out");
    for (const cell of this.#cells.values()) this.#drop(cell, error);
  }

  #within(cell: Cell): Promise<WorkloadCertificate> {
    const { promise, resolve, reject } = Promise.withResolvers<WorkloadCertificate>();
    const timer = this.#deps.clock.after(this.#waitMs, () => {
      const where = this.#inFlight.has(cell.id)
        ? "the authority has not answered"
        : `${this.#inFlight.size} other requests are on their way to the authority`;
      const seconds = formatSeconds(this.#waitMs);
      const message = `no certificate for ${cell.id} within ${seconds}: ${where}`;
      reject(new IdentityError("timeout", message));
    });
    cell.settled.promise.then(resolve, reject).finally(() => timer.cancel());
    return promise;
  }

  #add(id: string, identity: Identity, priority: RequestPriority): Cell {
    const cell: Cell = {
      id,
      identity,
      state: { kind: "initializing" },
      priority,
      settled: Promise.withResolvers(),
      retries: undefined,
      timer: undefined,
      isUnanswered: false,
    };
    this.#cells.set(id, cell);
    this.#enqueue(cell);
    return cell;
  }

  /**
   * A renewal may still be on its way when the certificate ends, and timers stand still while a
   * machine sleeps: nobody gets what no peer accepts, but what comes next, which is asked for at once.
   */
  #checkExpiry(cell: Cell): void {
    const { state } = cell;
    if (state.kind !== "available" || this.#isValid(state.certificate)) return;
    cell.state = { kind: "initializing" };
    cell.settled = Promise.withResolvers();
    cell.timer?.cancel();
    this.#enqueue(cell);
  }

  #isValid({ notAfterAt }: WorkloadCertificate): boolean {
    return notAfterAt > this.#deps.clock.now();
  }

  /** An identity that is on its way already, asked for before it was forgotten, is not sent again. */
  #enqueue(cell: Cell): void {
    if (!this.#inFlight.has(cell.id)) this.#due[cell.priority].add(cell);
    this.#startDue();
  }

  /** Only ever to something more urgent. */
  #raise(cell: Cell, priority: RequestPriority): void {
    if (PRIORITIES.indexOf(priority) >= PRIORITIES.indexOf(cell.priority)) return;
    const waits = this.#due[cell.priority].delete(cell);
    cell.priority = priority;
    if (waits) this.#due[priority].add(cell);
  }

  #drop(cell: Cell, error: IdentityError): void {
    this.#cells.delete(cell.id);
    this.#due[cell.priority].delete(cell);
    cell.timer?.cancel();
    cell.settled.reject(error);
  }

  #startDue(): void {
    for (const priority of PRIORITIES) {
      for (const cell of this.#due[priority]) {
        if (this.#inFlight.size >= IN_FLIGHT_MAX) return;
        this.#due[priority].delete(cell);
        this.#inFlight.add(cell.id);
        void this.#attempt(cell.id, cell.identity);
      }
    }
  }

  /** Never rejects. */
  async #attempt(id: string, identity: Identity): Promise<void> {
    let outcome: { readonly certificate: WorkloadCertificate } | { readonly error: Error };
    try {
      outcome = { certificate: await this.#deps.fetch(identity) };
    } catch (error) {
      outcome = { error: error instanceof Error ? error : new Error(String(error)) };
    }
    this.#inFlight.delete(id);
    if ("certificate" in outcome && !this.#isValid(outcome.certificate)) {
      this.#deps.skew.observe(outcome.certificate);
      outcome = { error: expiredError(id, outcome.certificate) };
    }
    this.#deps.metrics.ended("error" in outcome ? outcome.error : undefined);
    // The cell may be another by now, or gone: forgotten, and perhaps asked for once more.
    const cell = this.#cells.get(id);
    if (cell !== undefined) {
      if ("error" in outcome) this.#failed(cell, outcome.error);
      else this.#succeeded(cell, outcome.certificate);
    }
    this.#startDue();
  }

  #succeeded(cell: Cell, certificate: WorkloadCertificate): void {
    const { clock, random, log, skew } = this.#deps;
    skew.observe(certificate);
    if (log.enabled("debug")) {
      log.write("debug", "certificate fetch succeeded", [["id", { bare: cell.id }]]);
    }
    cell.retries = undefined;
    cell.isUnanswered = false;
    cell.state = { kind: "available", certificate };
    cell.settled.resolve(certificate);
    const now = clock.now();
    this.#schedule(cell, Math.max(renewalAt(certificate, now, random) - now, RENEWAL_MS_MIN));
    for (const listener of this.#listeners) listener(certificate);
  }

  #failed(cell: Cell, error: Error): void {
    const { clock, random, log } = this.#deps;
    const now = clock.now();
    cell.retries ??= new RetrySchedule(random, clock.monotonic());
    const retryMs = cell.retries.next(clock.monotonic());
    cell.isUnanswered = error instanceof IdentityError && error.code === "unreachable";
    const held = cell.state.kind === "available" ? cell.state.certificate : undefined;
    if (held !== undefined && this.#isValid(held)) {
      const nextMs = Math.min(retryMs, held.notAfterAt - now);
      log.write(
        "info",
        `certificate renewal failed (${error.message}); retaining existing valid certificate ` +
          `until ${formatTimestamp(held.notAfterAt)}; next retry at ${formatTimestamp(now + nextMs)}`,
        [["id", { bare: cell.id }]],
      );
      this.#schedule(cell, nextMs);
      return;
    }
    log.write(
      "warn",
      `certificate fetch failed (${error.message}) and no valid existing certificate; ` +
        `will retry in ${formatSeconds(retryMs)} (backoff capped at 150s)`,
      [["id", { bare: cell.id }]],
    );
    cell.state = { kind: "unavailable", error };
    cell.settled.reject(error);
    this.#schedule(cell, retryMs);
  }

  #schedule(cell: Cell, delayMs: number): void {
    cell.priority = "background";
    cell.timer = this.#deps.clock.after(delayMs, () => this.#enqueue(cell));
  }
}

function expiredError(id: string, { notAfterAt }: WorkloadCertificate): IdentityError {
  const since = formatTimestamp(notAfterAt);
  return new IdentityError("expired", `the certificate that came for ${id} expired at ${since}`);
}

function describe(cell: Cell): CertificateEntry {
  const { state } = cell;
  const held = state.kind === "available" ? state.certificate : undefined;
  return {
    certChain: (held?.chainPem ?? []).map(summarizeCertificate),
    identity: cell.id,
    rootCerts: (held?.rootsPem ?? []).map(summarizeCertificate),
    state: formatState(state),
  };
}

function formatState(state: CellState): string {
  const name = STATE_NAMES[state.kind];
  return state.kind === "unavailable" ? `${name}: ${state.error.message}` : name;
}

/** `1.234s` */
function formatSeconds(durationMs: number): string {
  return `${Number((durationMs / 1000).toFixed(3))}s`;
}
