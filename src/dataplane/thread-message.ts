/** What crosses between the main thread and a data thread. All of it survives `structuredClone`. */
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { Identity } from "../mesh/identity.ts";
import type { IpAddress } from "../mesh/ip-address.ts";
import type { WorkloadCertificate } from "../mesh/workload-certificate.ts";
import type { Datagrams } from "../net/udp-counters.ts";
import type { LiveConnections } from "../proxy/connection-report.ts";
import type { TrafficDelta } from "../proxy/traffic-metrics.ts";
import type { CallNode, ProfileRequest } from "../runtime/thread-profiler.ts";
import type { OutlierChange } from "../state/endpoint-outliers.ts";
import type { MeshChange } from "../state/mesh-writer.ts";
import type { RevocationList } from "../tls/revocation-list.ts";
import type { ThreadSample } from "./data-plane.ts";
import type { DataThreadOptions } from "./data-thread.ts";

/** Main thread → data thread. Those with a `call` are answered with the same number. */
export type ThreadCommand =
  /** The memory of the mesh has been changed. */
  | { readonly kind: "mesh-changed"; readonly change: MeshChange }
  | {
      readonly kind: "start-workload";
      readonly call: number;
      readonly workload: EnrolledWorkload;
      readonly netnsFd: number;
      /** Answer its DNS queries, too. */
      readonly withDns: boolean;
    }
  | { readonly kind: "start-self"; readonly call: number; readonly workload: EnrolledWorkload }
  | {
      readonly kind: "listen-dedicated";
      readonly call: number;
      readonly workload: EnrolledWorkload;
      readonly withDns: boolean;
    }
  | { readonly kind: "serve-dedicated"; readonly call: number }
  /** Answered when the workload's ports are free. */
  | { readonly kind: "stop-listening"; readonly call: number; readonly uid: string }
  /** Answered when the workload's last connection has ended. */
  | {
      readonly kind: "stop-workload";
      readonly call: number;
      readonly uid: string;
      readonly drainMs: number;
    }
  | {
      readonly kind: "certificate";
      /** The number of the thread's own {@link ThreadReport} that asked. */
      readonly call: number;
      readonly certificate?: WorkloadCertificate;
      readonly error?: string;
    }
  /** Answers the thread's `learn` of the same number; what was found is part of the mesh by now. */
  | { readonly kind: "learnt"; readonly call: number }
  /** Answers the thread's `addresses` of the same number. */
  | {
      readonly kind: "addresses";
      readonly call: number;
      readonly ips?: readonly IpAddress[];
      readonly error?: string;
    }
  | { readonly kind: "renewed"; readonly certificate: WorkloadCertificate }
  | { readonly kind: "forgotten"; readonly identity: Identity }
  | { readonly kind: "revocations"; readonly lists: readonly RevocationList[] }
  | { readonly kind: "log-filter"; readonly filter: string }
  | { readonly kind: "collect"; readonly call: number }
  | { readonly kind: "connections"; readonly call: number; readonly uid: string }
  | { readonly kind: "dns-datagrams"; readonly call: number; readonly uid: string }
  | { readonly kind: "profile"; readonly call: number; readonly request: ProfileRequest }
  | { readonly kind: "drain"; readonly call: number; readonly deadlineMs: number }
  | { readonly kind: "close"; readonly call: number };

/** Data thread → main thread. */
export type ThreadReport =
  | {
      readonly kind: "answer";
      readonly call: number;
      readonly error?: string;
      readonly sample?: ThreadSample;
      readonly datagrams?: Datagrams;
      readonly profile?: readonly CallNode[];
    }
  /** Some of the connections that were asked for; the answer comes after the last of them. */
  | { readonly kind: "connections"; readonly call: number; readonly some: LiveConnections }
  /** Some of the series of a sample; the answer brings the last of them and the rest of it. */
  | { readonly kind: "series"; readonly call: number; readonly some: readonly TrafficDelta[] }
  | { readonly kind: "certificate"; readonly call: number; readonly identity: Identity }
  /** Asks a control plane for a workload or service by one of its names. */
  | { readonly kind: "learn"; readonly call: number; readonly key: string }
  /** Asks for the addresses of a host. */
  | { readonly kind: "addresses"; readonly call: number; readonly hostname: string }
  /** An endpoint is left out, or no longer. */
  | { readonly kind: "outlier"; readonly change: OutlierChange }
  /** Finished lines, each with its line feed. */
  | { readonly kind: "log"; readonly text: string };

/** What a data thread is started with. */
export interface ThreadStart {
  /** The memory of the mesh, which the main thread writes. */
  readonly mesh: SharedArrayBuffer;
  /** Which endpoint a client was last at; every thread writes it. */
  readonly affinity: SharedArrayBuffer;
  readonly options: DataThreadOptions;
  readonly log: { readonly format: "plain" | "json"; readonly filter: string };
}
