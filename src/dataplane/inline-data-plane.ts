/** The data path on the calling thread (`ZTUNNEL_WORKER_THREADS=0`): how most tests run. */
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { Identity } from "../mesh/identity.ts";
import type { WorkloadCertificate } from "../mesh/workload-certificate.ts";
import type { Datagrams } from "../net/udp-counters.ts";
import type { LiveConnections } from "../proxy/connection-report.ts";
import { measureLoopDelay } from "../runtime/loop-delay.ts";
import type { MeshChange } from "../state/mesh-writer.ts";
import type { RevocationList } from "../tls/revocation-list.ts";
import { CertificateStore } from "./certificate-store.ts";
import type { CertificateSource, DataPlane, StoppingWorkload, ThreadSample } from "./data-plane.ts";
import { DataThread, type DataThreadDeps, type DataThreadOptions } from "./data-thread.ts";
import { makeEngine } from "./make-engine.ts";

/** As the daemon runs it, with its own engine. */
export function openInlineDataPlane(
  deps: Omit<DataThreadDeps, "engine" | "certificateFor" | "loopDelay"> & {
    readonly certificateFor: CertificateSource;
  },
  options: DataThreadOptions,
): DataPlane {
  const engine = makeEngine(deps.clock, deps.log, options);
  return new InlineDataPlane({ ...deps, engine, loopDelay: measureLoopDelay() }, options);
}

export class InlineDataPlane implements DataPlane {
  readonly threads: readonly string[] = [];
  readonly #thread: DataThread;
  readonly #certificates: CertificateStore;

  constructor(
    deps: Omit<DataThreadDeps, "certificateFor"> & {
      readonly certificateFor: CertificateSource;
    },
    options: DataThreadOptions,
  ) {
    this.#certificates = new CertificateStore(deps.certificateFor, deps.clock);
    this.#thread = new DataThread(
      { ...deps, certificateFor: (identity) => this.#certificates.certificate(identity) },
      options,
    );
  }

  meshChanged(change: MeshChange): void {
    this.#thread.meshChanged(change);
  }

  async startWorkload(workload: EnrolledWorkload, netnsFd: number): Promise<void> {
    this.#thread.startWorkload(workload, netnsFd, true);
  }

  async startSelf(workload: EnrolledWorkload): Promise<void> {
    this.#thread.startSelf(workload);
  }

  async listenDedicated(workload: EnrolledWorkload): Promise<void> {
    this.#thread.listenDedicated(workload, true);
  }

  async serveDedicated(): Promise<void> {
    this.#thread.serveDedicated();
  }

  stopWorkload(uid: string, drainMs: number): StoppingWorkload {
    const ended = this.#thread.stopWorkload(uid, drainMs);
    return { portsFree: Promise.resolve(), ended };
  }

  certificateRenewed(certificate: WorkloadCertificate): void {
    this.#certificates.renewed(certificate);
  }

  certificateForgotten(identity: Identity): void {
    this.#certificates.forgotten(identity);
  }

  revocationsChanged(lists: readonly RevocationList[]): void {
    this.#thread.revocationsChanged(lists);
  }

  /** The logger is the caller's own, which has the filter already. */
  setLogFilter(): void {}

  async collect(): Promise<readonly ThreadSample[]> {
    return [this.#thread.collect()];
  }

  async connections(uid: string): Promise<LiveConnections> {
    return this.#thread.connections(uid);
  }

  dnsDatagrams(uid: string): Promise<Datagrams> {
    return this.#thread.dnsDatagrams(uid);
  }

  async profile(thread: string): Promise<never> {
    throw new Error(`there is no data thread ${thread}`);
  }

  drain(deadlineMs: number): Promise<void> {
    return this.#thread.drain(deadlineMs);
  }

  close(): Promise<void> {
    return this.#thread.close();
  }
}
