/** The daemon's data path: on the threads that were started for it, or inline where there are none. */
import type { Config } from "../config/config.ts";
import type { CertificateSource, DataPlane } from "../dataplane/data-plane.ts";
import type { DataThreadOptions } from "../dataplane/data-thread.ts";
import type { StartedThread } from "../dataplane/data-threads.ts";
import type { openInlineDataPlane } from "../dataplane/inline-data-plane.ts";
import type { OutlierList } from "../dataplane/outlier-list.ts";
import { WorkerDataPlane } from "../dataplane/worker-data-plane.ts";
import { HostAddresses } from "../dns/host-addresses.ts";
import { systemResolver } from "../dns/system-resolver.ts";
import { native } from "../net/native.ts";
import type { AddressesOf } from "../proxy/proxy-options.ts";
import type { Clock } from "../runtime/clock.ts";
import { errorText } from "../runtime/error-text.ts";
import type { Random } from "../runtime/random.ts";
import type { SessionAffinity } from "../state/session-affinity.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { DaemonMesh } from "./daemon-mesh.ts";
import { CONTROL_THREAD } from "./operator-servers.ts";

export interface DaemonDataPlaneDeps {
  readonly mesh: Pick<DaemonMesh, "state" | "buffer" | "learn">;
  readonly certificateFor: CertificateSource;
  /** Which endpoint a client was last at: for this thread, and the memory that all threads share. */
  readonly affinity: SessionAffinity;
  readonly affinityMemory: SharedArrayBuffer;
  readonly outliers: OutlierList;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Takes finished lines of data threads. */
  readonly writeLog: (text: string) => void;
  /** A thread died of a bug. */
  readonly threadFailed: (error: Error) => void;
}

/** What the data path runs on. */
export interface DataPlaneThreads {
  readonly threads: readonly StartedThread[];
  /** Given when there are none: what moves bytes is loaded on the thread that moves them. */
  readonly openInline: typeof openInlineDataPlane | undefined;
}

export function makeDataPlane(
  deps: DaemonDataPlaneDeps,
  config: Config,
  { threads, openInline }: DataPlaneThreads,
): DataPlane {
  const { mesh, certificateFor, affinity, affinityMemory, outliers, clock, random, log } = deps;
  const learn = (key: string): Promise<void> => mesh.learn(key);
  const hosts = new HostAddresses({ ask: systemResolver(config.hosts), clock }, config.hosts);
  const addressesOf: AddressesOf = (hostname) => hosts.find(hostname);
  const queueMigrationFd = config.proxy.reusePort ? loadQueueMigration(log) : undefined;
  const options: DataThreadOptions = {
    onDemand: config.mesh.discovery?.onDemand ?? false,
    proxy: config.proxy,
    ...(queueMigrationFd === undefined ? {} : { queueMigrationFd }),
    proxyEnabled: config.proxyEnabled,
    dns: config.dns,
  };
  if (openInline !== undefined) {
    return openInline(
      {
        mesh: mesh.state,
        ...{ certificateFor, addressesOf, affinity, clock, random, log },
        learn: options.onDemand ? learn : undefined,
        outlierChanged: (change) => outliers.changed(CONTROL_THREAD, change),
      },
      options,
    );
  }
  const { writeLog, threadFailed } = deps;
  return new WorkerDataPlane(
    {
      ...{ certificateFor, addressesOf, learn, clock, writeLog, threadFailed },
      outlierChanged: (thread, change) => outliers.changed(thread, change),
    },
    {
      threads,
      mesh: mesh.buffer,
      affinity: affinityMemory,
      options,
      log: { format: config.logging.format, filter: config.logging.filter },
    },
  );
}

function loadQueueMigration(log: Logger): number | undefined {
  try {
    return native.loadQueueMigration();
  } catch (error) {
    log.write(
      "info",
      `connections that wait to be accepted when this process ends will be reset, a successor can't have them: ${errorText(error)}`,
    );
    return undefined;
  }
}
