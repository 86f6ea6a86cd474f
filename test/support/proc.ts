/** What the kernel says about a running process or a network namespace. */
import { readdirSync, readFileSync } from "node:fs";
import type { LabHost, NetnsLab } from "./netns-lab.ts";

/** Open descriptors. @throws when the process is gone. */
export function fdCount(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

/** Resident memory in bytes. */
export function residentBytes(pid: number): number {
  const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  if (kilobytes === undefined) throw new Error(`process ${pid} has no VmRSS`);
  return Number(kilobytes) * 1024;
}

/** CPU time used so far, user and system, seconds. */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // Fields 14 and 15, counted after the name, which may contain anything; in ticks of 10 ms.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** TCP sockets in TIME_WAIT in the host's namespace. */
export function timeWaitCount(net: NetnsLab, host: LabHost): number {
  const sockstat = net.exec(host, "cat", "/proc/net/sockstat");
  return Number(/^TCP: .* tw (\d+)/m.exec(sockstat)?.[1] ?? 0);
}

/** How often a listener of the host's namespace had no room for one more connection. */
export function listenOverflows(net: NetnsLab, host: LabHost): number {
  const lines = net.exec(host, "cat", "/proc/net/netstat").split("\n");
  const [names, values] = lines.filter((line) => line.startsWith("TcpExt:"));
  const index = names?.split(" ").indexOf("ListenOverflows") ?? -1;
  return Number(values?.split(" ")[index]);
}
