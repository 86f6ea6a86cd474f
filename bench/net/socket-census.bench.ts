/**
 * What a look at the sockets of a pod costs: with 100 pods of a daemon with one data thread, without and with
 * a pod among them that has leaked. CPU time is the thread's own, in the kernel too.
 */
import { closeSync, openSync } from "node:fs";
import { native } from "../../src/net/native.ts";
import { type SocketCensus, takeCensus } from "../../src/net/socket-census.ts";
import { threadCpuMs } from "../../src/runtime/cpu-time.ts";
import { NetnsLab } from "../../test/support/netns-lab.ts";
import { isQuick, report, Samples } from "../measure.ts";

const PODS = 100;
const ROUNDS = isQuick() ? 3 : 20;
/** Each leaves a socket in CLOSE_WAIT and its peer in FIN_WAIT2. */
const LEAKED = 10_000;
const MARK = 1337;
/** 15001, 15006, 15008 and DNS of either family, as the daemon has them in each pod. */
const LISTENERS = 5;

const samples = new Samples();
const net = new NetnsLab();
const fds: number[] = [];
try {
  const pods = Array.from({ length: PODS }, (_, at) => addPod(`pod${at}`, `10.0.0.${at + 1}/24`));
  const [leaky = -1] = pods;
  lookAtAll(pods, "one of 100 pods, 5 listeners each");
  leak(leaky);
  const size = `${2 * LEAKED} sockets`;
  lookAtAll([leaky], `the pod with ${size}`);
  lookAtAll(pods.slice(1), `one of 99 pods beside it`);
  report(samples.measures());
} finally {
  for (const fd of fds) closeSync(fd);
  net.close();
}

/** @returns its namespace. */
function addPod(name: string, ipv4: string): number {
  const netnsFd = openSync(net.addHost(name, { ipv4 }).path, "r");
  fds.push(netnsFd);
  for (let port = 15_001; port <= 15_000 + LISTENERS; port++) fds.push(listen(netnsFd, port));
  return netnsFd;
}

function listen(netnsFd: number, port: number): number {
  const { fd } = native.socketInNamespace({
    ...{ netnsFd, family: "ipv6", type: "stream", dualStack: true, mark: MARK },
    ...{ bind: { ip: "::", port }, listenBacklog: 128 },
  });
  return fd;
}

function leak(netnsFd: number): void {
  const listener = listen(netnsFd, 8080);
  fds.push(listener);
  for (let i = 0; i < LEAKED; i++) {
    const { fd } = native.socketInNamespace({ netnsFd, family: "ipv4", type: "stream" });
    fds.push(fd);
    native.connect(fd, "127.0.0.1", 8080);
    const accepted = native.accept(listener);
    if (accepted === undefined) throw new Error("loopback connects at once");
    closeSync(accepted);
  }
}

function lookAtAll(pods: readonly number[], what: string): void {
  look(pods[0] ?? -1);
  for (let round = 0; round < ROUNDS; round++) {
    let longestMs = 0;
    const before = threadCpuMs();
    for (const pod of pods) longestMs = Math.max(longestMs, look(pod));
    const value = (threadCpuMs() - before) / pods.length;
    samples.note({ name: `${what}: CPU time of a look`, unit: "ms" }, { value, stealShare: 0 });
    const longest = { value: longestMs, stealShare: 0 };
    samples.note({ name: `${what}: longest step`, unit: "ms" }, longest);
  }
}

/** @returns how long the thread was kept at a time, at most, milliseconds. */
function look(netnsFd: number): number {
  const steps: Generator<undefined, SocketCensus> = takeCensus(native, { netnsFd, mark: MARK });
  let longestMs = 0;
  for (;;) {
    const startedAt = performance.now();
    const { done } = steps.next();
    longestMs = Math.max(longestMs, performance.now() - startedAt);
    if (done) return longestMs;
  }
}
