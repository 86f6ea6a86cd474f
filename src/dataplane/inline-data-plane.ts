/** The data path on the calling thread (`ZTUNNEL_WORKER_THREADS=0`): how most tests run. */
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { Identity } from "../mesh/identity.ts";
import type { MeshUpdate } from "../mesh/mesh-update.ts";
import type { WorkloadCertificate } from "../mesh/workload-certificate.ts";
import { CertificateStore } from "./certificate-store.ts";
import type { CertificateSource, DataPlane, ThreadSample } from "./data-plane.ts";
import { DataThread, type DataThreadDeps, type DataThreadOptions } from "./data-thread.ts";

export class InlineDataPlane implements DataPlane {
  readonly #thread: DataThread;
  readonly #certificates: CertificateStore;

  constructor(
    deps: Omit<DataThreadDeps, "certificateFor"> & {
      readonly certificateFor: CertificateSource;
    },
    options: DataThreadOptions,
  ) {
    this.#certificates = new CertificateStore(deps.certificateFor);
    this.#thread = new DataThread(
      { ...deps, certificateFor: (identity) => this.#certificates.certificate(identity) },
      options,
    );
  }

  apply(updates: readonly MeshUpdate[]): void {
    this.#thread.apply(updates);
  }

  async startWorkload(workload: EnrolledWorkload, netnsFd: number): Promise<void> {
    this.#thread.startWorkload(workload, netnsFd);
  }

  async startSelf(workload: EnrolledWorkload): Promise<void> {
    this.#thread.startSelf(workload);
  }

  stopWorkload(uid: string): Promise<void> {
    return this.#thread.stopWorkload(uid);
  }

  certificateRenewed(certificate: WorkloadCertificate): void {
    this.#certificates.renewed(certificate);
  }

  certificateForgotten(identity: Identity): void {
    this.#certificates.forgotten(identity);
  }

  /** The logger is the caller's own, which has the filter already. */
  setLogFilter(): void {}

  async collect(): Promise<readonly ThreadSample[]> {
    return [this.#thread.collect()];
  }

  drain(deadlineMs: number): Promise<void> {
    return this.#thread.drain(deadlineMs);
  }

  close(): Promise<void> {
    return this.#thread.close();
  }
}
