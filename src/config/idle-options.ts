/**
 * Variables that are set and could not have an effect, because what they belong to is not there:
 * refused, so that nobody believes that they hold.
 *
 * Settings of what a switch turned off (`KEEPALIVE_TIME` beside `KEEPALIVE_ENABLED=false`) rest
 * unrefused: who turned it off knows. So does what the original's chart sets in every deployment.
 */
import type { Config } from "./config.ts";
import type { EnvironmentReader } from "./environment-reader.ts";

interface IdleOptions {
  /** Ends in `*` where the rest of the name is free. */
  readonly names: readonly string[];
  readonly isIdle: (config: Config, isSet: (name: string) => boolean) => boolean;
  /** Why, and what to set. */
  readonly reason: string;
}

/** By which an operator says that something is not wanted. */
const UNWANTED: ReadonlySet<string> = new Set(["", "false"]);

const IDLE_OPTIONS: readonly IdleOptions[] = [
  {
    names: [
      ...["XDS_ROOT_CA", "ALT_XDS_HOSTNAME", "XDS_HEADER_*", "XDS_ON_DEMAND", "STATE_DIR"],
      ...["XDS_CONNECT_TIMEOUT", "XDS_FIRST_ANSWER_TIMEOUT", "XDS_OFFERED_VERSIONS_SIZE"],
      "XDS_MESSAGE_SIZE",
    ],
    isIdle: ({ mesh }) => mesh.discovery === undefined,
    reason: "the mesh comes from a file alone, no control plane is asked without XDS_ADDRESS",
  },
  {
    names: ["XDS_ON_DEMAND_TIMEOUT"],
    isIdle: (_, isSet) => !isSet("XDS_ON_DEMAND"),
    reason: "the whole mesh is learned at once without XDS_ON_DEMAND=true",
  },
  {
    names: ["STATE_SAVE_INTERVAL", "STATE_MAX_AGE"],
    isIdle: (_, isSet) => !isSet("STATE_DIR"),
    reason: "the mesh is not kept without STATE_DIR",
  },
  {
    names: [
      ...["OUTLIER_MAX_EJECTION_PERCENT", "OUTLIER_FAILURE_WINDOW"],
      ...["OUTLIER_BASE_EJECTION_TIME", "OUTLIER_MAX_EJECTION_TIME"],
    ],
    isIdle: (_, isSet) => !isSet("OUTLIER_CONSECUTIVE_FAILURES"),
    reason: "no endpoint is left out without OUTLIER_CONSECUTIVE_FAILURES",
  },
  {
    names: ["PROXY_WORKLOAD_INFO"],
    isIdle: ({ mode }) => mode.kind === "shared",
    reason: "the node agent tells the workloads without PROXY_MODE=dedicated",
  },
  {
    names: ["INPOD_UDS", "POD_TERMINATION_DEADLINE"],
    isIdle: ({ mode }) => mode.kind === "dedicated",
    reason: "with PROXY_MODE=dedicated there is no node agent",
  },
  {
    names: ["TRUST_DOMAIN"],
    isIdle: ({ mode }) => mode.kind === "dedicated" || mode.self === undefined,
    reason:
      "it is that of the daemon's own pod, which needs POD_NAME, POD_NAMESPACE, SERVICE_ACCOUNT and PROXY_MODE=shared",
  },
  {
    names: ["UNSTABLE_ENABLE_SOCKS5"],
    isIdle: ({ proxyEnabled }) => !proxyEnabled,
    reason: "ENABLE_PROXY=false takes no connections",
  },
  {
    names: ["TLS12_ENABLED"],
    isIdle: ({ proxy }) => proxy.postQuantumOnly,
    reason: "COMPLIANCE_POLICY=pqc demands a key exchange that TLS 1.2 does not have",
  },
];

/** Notes a mistake for each; without its value, which may be a secret. */
export function refuseIdleOptions(reader: EnvironmentReader, config: Config): void {
  const isSet = (name: string): boolean => reader.text(name) !== undefined;
  for (const { names, isIdle, reason } of IDLE_OPTIONS) {
    if (!isIdle(config, isSet)) continue;
    for (const name of names.flatMap((pattern) => wanted(reader, pattern))) {
      reader.mistake(`invalid configuration: ${name} has no effect: ${reason}`);
    }
  }
}

/** Those that are set to something. */
function wanted(reader: EnvironmentReader, pattern: string): readonly string[] {
  if (pattern.endsWith("*")) {
    const prefix = pattern.slice(0, -1);
    return reader.withPrefix(prefix).map(([rest]) => prefix + rest);
  }
  return UNWANTED.has(reader.text(pattern) ?? "") ? [] : [pattern];
}
