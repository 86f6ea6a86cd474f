/** What the DNS servers of all pods have in common. Plain data: it is sent to data threads. */
import type { SocketAddress } from "../mesh/socket-address.ts";

export interface DnsOptions {
  /** `localhost` is 127.0.0.1, and ::1 where the pod's loopback has IPv6. */
  readonly listen: { readonly localhost: number } | SocketAddress;
  /** Answer AAAA with addresses, and listen on ::1. */
  readonly ipv6: boolean;
  /** SO_MARK of every socket, by which the redirect rules know ours. */
  readonly mark: number | undefined;
  readonly reusePort: boolean;
  /** Names of services in Kubernetes end in `.svc.` and this; lower case, no dot at its end. */
  readonly clusterDomain: string;
  readonly preferredNamespace: string | undefined;
  /** Where searched names are resolved: what Kubernetes gives to pods, or the file's own list. */
  readonly searchDomains: "pod" | "file";
  /** Names the resolvers; read when a pod starts. */
  readonly resolvConfPath: string;
  /** Queries of one pod that wait for an answer; more are answered with a failure. */
  readonly queriesMax: number;
  /** TCP connections of one pod. */
  readonly connectionsMax: number;
  /** Longest wait for one resolver's answer; the file may say less. */
  readonly resolverTimeoutMs: number;
  /** A TCP connection without queries is closed after it. */
  readonly idleMs: number;
}
