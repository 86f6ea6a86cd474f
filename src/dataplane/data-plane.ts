/**
 * The data path as the rest of the process sees it, whether it runs on the main thread or on
 * several data threads. The mesh lies in memory that all threads read; what crosses is plain data:
 * word of its changes and certificates down, log lines and counter deltas up.
 */
import type { DnsSample } from "../dns/dns-metrics.ts";
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { Identity } from "../mesh/identity.ts";
import type { WorkloadCertificate } from "../mesh/workload-certificate.ts";
import type { Datagrams } from "../net/udp-counters.ts";
import type { LiveConnections } from "../proxy/connection-report.ts";
import type { TrafficSample } from "../proxy/traffic-metrics.ts";
import type { LoopDelay } from "../runtime/loop-delay.ts";
import type { CallNode, ProfileRequest } from "../runtime/thread-profiler.ts";
import type { MeshChange } from "../state/mesh-writer.ts";
import type { RevocationList } from "../tls/revocation-list.ts";

export interface DataPlane {
  /** Names of the data threads; empty when everything runs on the calling one. */
  readonly threads: readonly string[];
  /** Tells every thread that the memory of the mesh was changed; they could read it before. */
  meshChanged(change: MeshChange): void;
  /**
   * Binds a workload's listeners in its network namespace on every thread, and its DNS server on one.
   *
   * @param netnsFd open until all of {@link stopWorkload} has settled.
   * @throws Error with the text of the bind failure; nothing stays bound then.
   */
  startWorkload(workload: EnrolledWorkload, netnsFd: number): Promise<void>;
  /**
   * Takes tunnels to the daemon's own pod, on one thread.
   *
   * @throws Error with the text of the bind failure.
   */
  startSelf(workload: EnrolledWorkload): Promise<void>;
  /**
   * Binds the listeners of the only workload, in the daemon's own network namespace, on every thread.
   * Connections wait in the kernel until {@link serveDedicated}.
   *
   * @throws Error with the text of the bind failure.
   */
  listenDedicated(workload: EnrolledWorkload): Promise<void>;
  /** Begins to take what {@link listenDedicated} has let wait. Once. */
  serveDedicated(): Promise<void>;
  /**
   * Lets a workload go: its ports are closed, what is connected goes on until it ends. Unknown uids are fine.
   *
   * @param drainMs what is left then ends; 0: everything ends at once.
   */
  stopWorkload(uid: string, drainMs: number): StoppingWorkload;
  /** Later handshakes use it; running tunnels keep theirs. */
  certificateRenewed(certificate: WorkloadCertificate): void;
  /** The next connection that needs it asks anew. */
  certificateForgotten(identity: Identity): void;
  /** From now on these certificates are revoked and no others, in open tunnels too. */
  revocationsChanged(lists: readonly RevocationList[]): void;
  setLogFilter(filter: string): void;
  /** What each thread has to say since the last call, always in the same order. */
  collect(): Promise<readonly ThreadSample[]>;
  /** What is connected to or from the workload now, also after it was stopped; nothing for unknown uids. */
  connections(uid: string): Promise<LiveConnections>;
  /**
   * Those of the workload's namespace so far that are DNS through its server here: queries and answers at
   * both ends, and what was asked on their behalf; none that had come before the call is missing. Zeros for
   * unknown uids.
   */
  dnsDatagrams(uid: string): Promise<Datagrams>;
  /** @throws Error what V8 says; that the thread has ended. */
  profile(thread: string, request: ProfileRequest): Promise<readonly CallNode[]>;
  /** Closes the listeners at once; settles when all connections ended, at the latest at the deadline. */
  drain(deadlineMs: number): Promise<void>;
  /** Ends everything at once. Idempotent. */
  close(): Promise<void>;
}

/** A workload on its way out. */
export interface StoppingWorkload {
  /** Settles when the same workload may be started again. */
  readonly portsFree: Promise<void>;
  /** Settles when its last connection has ended. */
  readonly ended: Promise<void>;
}

/** What changed in a thread's counters, and how late it was. Survives `structuredClone`. */
export interface ThreadSample extends TrafficSample {
  readonly loopDelay: LoopDelay;
  readonly dns: DnsSample;
}

/** Where data threads get the certificates that they serve and dial with. */
export type CertificateSource = (identity: Identity) => Promise<WorkloadCertificate>;
