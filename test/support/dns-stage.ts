/** A DNS server on loopback, with a scripted resolver behind it. */

import { once } from "node:events";
import { createServer } from "node:net";
import { DnsBindError } from "../../src/dns/dns-error.ts";
import { type DnsDelta, DnsMetrics } from "../../src/dns/dns-metrics.ts";
import type { DnsOptions } from "../../src/dns/dns-options.ts";
import { DnsServer } from "../../src/dns/dns-server.ts";
import type { Ask } from "../../src/dns/forwarder.ts";
import type { QuerySource } from "../../src/dns/query-handler.ts";
import type { SocketAddress } from "../../src/mesh/socket-address.ts";
import type { Workload } from "../../src/mesh/workload.ts";
import { native } from "../../src/net/native.ts";
import type { Datagrams } from "../../src/net/udp-counters.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { systemRandom } from "../../src/runtime/random.ts";
import type { MeshState } from "../../src/state/mesh-state.ts";
import { encodeDnsError } from "../../src/wire/dns-answer.ts";
import { RCODE } from "../../src/wire/dns-message.ts";
import { readDnsQuery } from "../../src/wire/dns-query.ts";
import { CapturedLog, formatFields } from "./captured-log.ts";
import { ip } from "./mesh-fixture.ts";

const LOOPBACK = ip("127.0.0.1");

export interface DnsStageOptions {
  readonly state: MeshState;
  /** Whose server it is; a function is asked each time. */
  readonly source: Workload | QuerySource;
  readonly options?: Partial<DnsOptions>;
  /** Listens on both loopback addresses, not only on that of IPv4. */
  readonly onLocalhost?: boolean;
  /** Of the machine's file. */
  readonly searchDomains?: readonly string[];
  /** Default: refuses everything. */
  readonly ask?: Ask;
  readonly isOwn?: (transport: "udp" | "tcp", peer: SocketAddress) => boolean;
  /** Datagrams between it and the resolvers. */
  readonly asked?: Datagrams;
}

export interface DnsStage {
  readonly server: SocketAddress;
  readonly dns: DnsServer;
  /** What the resolver was asked. */
  readonly forwarded: readonly Uint8Array[];
  readonly log: CapturedLog;
  /** The log's fields, line by line. */
  lines(): readonly string[];
  metrics(): readonly DnsDelta[];
  close(): Promise<void>;
}

/** On a port that nobody else has, in any transport or family, unless the options name one. */
export async function startDnsServer(stage: DnsStageOptions): Promise<DnsStage> {
  if (stage.options?.listen !== undefined) return listenDns(stage, stage.options.listen);
  for (;;) {
    const port = await freePort();
    try {
      return listenDns(stage, stage.onLocalhost ? { localhost: port } : { ip: LOOPBACK, port });
    } catch (error) {
      if (!(error instanceof DnsBindError)) throw error;
    }
  }
}

function listenDns(stage: DnsStageOptions, listen: DnsOptions["listen"]): DnsStage {
  const {
    state,
    source,
    options = {},
    searchDomains = [],
    ask = refuse,
    isOwn = () => false,
    asked = { received: 0, sent: 0 },
  } = stage;
  const server = {
    ip: LOOPBACK,
    port: "localhost" in listen ? listen.localhost : listen.port,
  };
  const forwarded: Uint8Array[] = [];
  const log = new CapturedLog("debug");
  const metrics = new DnsMetrics();
  const dns = new DnsServer(
    {
      native,
      resolvers: {
        ask(query, how) {
          forwarded.push(query);
          return ask(query, how);
        },
        isOwn,
        datagrams: asked,
        close: () => {},
      },
      mesh: state,
      source: "find" in source ? source : { find: () => source, wait: async () => source },
      metrics,
      log: log.root,
      clock: systemClock,
      random: systemRandom(),
    },
    {
      ipv6: true,
      mark: undefined,
      reusePort: false,
      clusterDomain: "cluster.local",
      preferredNamespace: undefined,
      searchDomains: "pod",
      resolvConfPath: "",
      queriesMax: 1000,
      connectionsMax: 100,
      resolverTimeoutMs: 5000,
      idleMs: 5000,
      ...options,
      listen,
      workload: { uid: "1", name: "client", namespace: "ns1", serviceAccount: "client" },
      netns: undefined,
      resolvConf: {
        resolvers: [ip("192.0.2.53")],
        searchDomains,
        timeoutMs: undefined,
        attempts: 1,
      },
    },
  );
  dns.listen();
  return {
    server,
    dns,
    forwarded,
    log,
    lines: () => log.of("dns").map(({ fields }) => formatFields(fields)),
    metrics: () => metrics.collect().series,
    close: async () => dns.close(),
  };
}

const refuse: Ask = async (query) => encodeDnsError(query, readDnsQuery(query), RCODE.refused);

/** Of TCP on 127.0.0.1; somebody may have it in UDP, or in IPv6. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}
