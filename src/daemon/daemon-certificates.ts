/** The certificates of the daemon: who signs them, and how the data path hears of changes. */
import type { Config } from "../config/config.ts";
import type { DataPlane } from "../dataplane/data-plane.ts";
import type { CertificateAuthority } from "../identity/certificate-authority.ts";
import {
  CertificateCache,
  type CertificateCounts,
  type CertificateEntry,
  type CertificateMetrics,
} from "../identity/certificate-cache.ts";
import { certificateOrder } from "../identity/certificate-order.ts";
import { ClockSkew } from "../identity/clock-skew.ts";
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { Identity } from "../mesh/identity.ts";
import { type Workload, workloadIdentity } from "../mesh/workload.ts";
import type { WorkloadCertificate } from "../mesh/workload-certificate.ts";
import type { Clock } from "../runtime/clock.ts";
import type { FileWatch } from "../runtime/file-watch.ts";
import type { Random } from "../runtime/random.ts";
import type { Logger } from "../telemetry/logger.ts";
import { istiodLineOptions } from "./istiod-line-options.ts";

export interface DaemonCertificatesDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics: (counts: () => CertificateCounts) => CertificateMetrics;
}

export class DaemonCertificates {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #revocationPath: string | undefined;
  readonly #skew: ClockSkew;
  readonly #cache: CertificateCache;
  readonly #prefetches: boolean;
  #revocations: FileWatch | undefined;

  constructor(deps: DaemonCertificatesDeps, config: Config) {
    const { clock, random } = deps;
    const { identity, mode } = config;
    // The only workload of the dedicated mode is the caller itself.
    const isShared = mode.kind === "shared";
    const log = deps.log.target("ztunnel::identity");
    this.#clock = clock;
    this.#log = log;
    this.#prefetches = isShared;
    this.#revocationPath = identity.revocationPath;
    this.#skew = new ClockSkew({ clock, log });
    const authority = lateAuthority(async () => {
      const { IstioCaClient } = await import("../identity/istio-ca-client.ts");
      return new IstioCaClient(
        { clock, log },
        {
          ...istiodLineOptions(identity.authority, identity.headers, config),
          validitySeconds: Math.round(identity.certificateTtlMs / 1000),
          answerMs: identity.answerMs,
          impersonate: isShared,
        },
      );
    });
    this.#cache = new CertificateCache(
      {
        fetch: certificateOrder({ authority, log }, { checkIdentity: isShared }),
        clock,
        random,
        log,
        skew: this.#skew,
        metrics: deps.metrics(() => this.#cache.counts()),
      },
      { waitMs: identity.certificateWaitMs },
    );
  }

  /** By how much our clock is ahead of the authority's. */
  get skewSeconds(): number {
    return this.#skew.seconds;
  }

  /** For a connection that waits. @throws IdentityError */
  certificate(identity: Identity): Promise<WorkloadCertificate> {
    return this.#cache.certificate(identity, "real-time");
  }

  /** From now on the data path is told what is renewed and revoked. */
  async tell(dataPlane: DataPlane): Promise<void> {
    this.#cache.onRenewed((certificate) => dataPlane.certificateRenewed(certificate));
    if (this.#revocationPath === undefined) return;
    const { watchRevocationFile } = await import("../identity/revocation-file.ts");
    this.#revocations = await watchRevocationFile(
      {
        clock: this.#clock,
        log: this.#log,
        changed: (lists) => dataPlane.revocationsChanged(lists),
      },
      this.#revocationPath,
    );
  }

  /** So that they are there before most first connections; in dedicated mode the first one asks. */
  prefetch(workloads: readonly Workload[]): void {
    if (!this.#prefetches) return;
    for (const workload of workloads) {
      if (speaksHbone(workload)) this.#cache.prefetch(workloadIdentity(workload));
    }
  }

  /**
   * Keys of pods that are gone are neither renewed nor kept.
   *
   * @returns what was held or waited for.
   */
  forget(workload: EnrolledWorkload): readonly Identity[] {
    return this.#cache.forget(workload);
  }

  /** The control plane, where the authority mostly is, answers again. */
  retryUnanswered(): void {
    this.#cache.retryUnanswered();
  }

  /** Sorted by identity. */
  dump(): readonly CertificateEntry[] {
    return this.#cache.dump();
  }

  close(): void {
    this.#cache.close();
    this.#revocations?.close();
  }
}

function speaksHbone(workload: Workload): boolean {
  return workload.nativeTunnel || workload.protocol === "HBONE";
}

/** gRPC is loaded with the first request for a certificate: nobody waits for it at the start. */
function lateAuthority(open: () => Promise<CertificateAuthority>): CertificateAuthority {
  let opened: Promise<CertificateAuthority> | undefined;
  return {
    async sign(identity, csrPem) {
      opened ??= open();
      return (await opened).sign(identity, csrPem);
    },
  };
}
