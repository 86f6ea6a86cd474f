/**
 * The endpoints that data threads have left out, all in one place for operators: lines in the log,
 * metrics, `/debug/outliers` and `ztunnel why`.
 */
import type { Service } from "../mesh/service.ts";
import { serviceKey } from "../mesh/service.ts";
import type {
  Outlier,
  OutlierChange,
  OutlierView,
  ThreadOutlier,
} from "../state/endpoint-outliers.ts";
import type { Logger, LogValue } from "../telemetry/logger.ts";
import type { OutlierFamilies } from "./metrics.ts";

export interface OutlierListDeps {
  readonly log: Logger;
  readonly families: OutlierFamilies;
}

export class OutlierList implements OutlierView {
  readonly #deps: OutlierListDeps;
  #outliers: readonly ThreadOutlier[] = [];

  constructor(deps: OutlierListDeps) {
    this.#deps = deps;
  }

  /** @param thread the name of the one on which it happened. */
  changed(thread: string, { kind, outlier }: OutlierChange): void {
    const { families } = this.#deps;
    const others = this.#outliers.filter((other) => !isSame(other, outlier, thread));
    const log = this.#deps.log.target("ztunnel::proxy::outlier");
    const fields: [string, LogValue][] = [
      ["workload", outlier.workload],
      ["service", outlier.service],
      ["port", outlier.port],
    ];
    if (kind === "ejected") {
      this.#outliers = [...others, { ...outlier, thread }];
      families.ejections.inc({ thread });
      log.write("warn", "endpoint left out", [
        ...fields,
        ["failures", outlier.failures],
        ["for", `${outlier.ejectionMs}ms`],
        ["thread", thread],
      ]);
    } else {
      this.#outliers = others;
      log.write("info", "endpoint taken back", [...fields, ["thread", thread]]);
    }
    const count = this.#outliers.filter((other) => other.thread === thread).length;
    families.ejected.set({ thread }, count);
  }

  /** Longest left out first. */
  all(): readonly ThreadOutlier[] {
    return this.#outliers;
  }

  /** Those of any thread. */
  leftOut(service: Service, port: number): ReadonlySet<string> | undefined {
    const key = serviceKey(service);
    const uids = this.#outliers.flatMap((outlier) =>
      outlier.service === key && outlier.port === port ? [outlier.uid] : [],
    );
    return uids.length === 0 ? undefined : new Set(uids);
  }
}

function isSame(one: ThreadOutlier, other: Outlier, thread: string): boolean {
  const { service, port, uid } = one;
  return (
    one.thread === thread && service === other.service && port === other.port && uid === other.uid
  );
}
