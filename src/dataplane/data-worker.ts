/** The entry of a data thread: takes commands from the main thread, runs one {@link DataThread}. */
import { type MessagePort, parentPort } from "node:worker_threads";
import type { IpAddress } from "../mesh/ip-address.ts";
import type { WorkloadCertificate } from "../mesh/workload-certificate.ts";
import type { AddressesOf } from "../proxy/proxy-options.ts";
import { systemClock } from "../runtime/clock.ts";
import { errorText } from "../runtime/error-text.ts";
import { invariant } from "../runtime/invariant.ts";
import { measureLoopDelay } from "../runtime/loop-delay.ts";
import { Pace } from "../runtime/pace.ts";
import { systemRandom } from "../runtime/random.ts";
import { ThreadProfiler } from "../runtime/thread-profiler.ts";
import { AffinityTable } from "../state/affinity-table.ts";
import { MeshMemory } from "../state/mesh-memory.ts";
import { MeshState } from "../state/mesh-state.ts";
import { SessionAffinity } from "../state/session-affinity.ts";
import { createRootLogger } from "../telemetry/root-logger.ts";
import { Calls } from "./calls.ts";
import { CertificateStore } from "./certificate-store.ts";
import { DataThread } from "./data-thread.ts";
import { makeEngine } from "./make-engine.ts";
import { giveBackWhenQuiet } from "./quiet-thread.ts";
import { ThreadLogSink } from "./thread-log-sink.ts";
import type { ThreadCommand, ThreadReport, ThreadStart } from "./thread-message.ts";

/** How long connections or series are told of at a time, and how many in one message. */
const SLICE_MS = 1;
const PORTION_CONNECTIONS = 128;
const PORTION_SERIES = 256;

const port = parentPort;
invariant(port !== null, "a data thread is started by the main thread");
let take = (start: unknown): void => {
  take = run(port, start as ThreadStart);
};
port.on("message", (message) => take(message));

/** @returns what takes commands. */
function run(port: MessagePort, start: ThreadStart): (message: unknown) => void {
  const report = (message: ThreadReport): void => port.postMessage(message);
  const sink = new ThreadLogSink(systemClock, (text) => report({ kind: "log", text }));
  const logger = createRootLogger({ ...start.log, sink, clock: systemClock });
  const asked = new Calls<WorkloadCertificate>();
  const certificates = new CertificateStore((identity) =>
    asked.ask((call) => report({ kind: "certificate", call, identity })),
  );
  const learning = new Calls<void>();
  const learn = (key: string): Promise<void> =>
    learning.ask((call) => report({ kind: "learn", call, key }));
  const lookups = new Calls<readonly IpAddress[]>();
  const addressesOf: AddressesOf = (hostname) =>
    lookups.ask((call) => report({ kind: "addresses", call, hostname }));
  const thread = new DataThread(
    {
      engine: makeEngine(systemClock, logger.root, start.options),
      mesh: new MeshState(new MeshMemory(start.mesh)),
      certificateFor: (identity) => certificates.certificate(identity),
      addressesOf,
      learn: start.options.onDemand ? learn : undefined,
      affinity: new SessionAffinity(
        new AffinityTable(start.affinity, systemClock),
        start.options.proxy.affinity.services,
      ),
      outlierChanged: (change) => report({ kind: "outlier", change }),
      log: logger.root,
      clock: systemClock,
      random: systemRandom(),
      loopDelay: measureLoopDelay(),
    },
    start.options,
  );

  giveBackWhenQuiet(systemClock);

  const profiler = new ThreadProfiler(systemClock);
  const reportConnections = async (call: number, uid: string): Promise<void> => {
    const pace = new Pace(systemClock, SLICE_MS);
    const { inbound, outbound } = thread.connections(uid);
    for (let at = 0; at < Math.max(inbound.length, outbound.length); at += PORTION_CONNECTIONS) {
      const end = at + PORTION_CONNECTIONS;
      const some = { inbound: inbound.slice(at, end), outbound: outbound.slice(at, end) };
      report({ kind: "connections", call, some });
      if (pace.isOver) await pace.rest();
    }
  };

  const reportSample = async (call: number): Promise<void> => {
    const pace = new Pace(systemClock, SLICE_MS);
    const sample = thread.collect();
    const { series } = sample;
    let at = 0;
    for (; at + PORTION_SERIES < series.length; at += PORTION_SERIES) {
      report({ kind: "series", call, some: series.slice(at, at + PORTION_SERIES) });
      if (pace.isOver) await pace.rest();
    }
    report({ kind: "answer", call, sample: { ...sample, series: series.slice(at) } });
  };

  const fail = (call: number, error: unknown): void =>
    report({ kind: "answer", call, error: errorText(error) });
  const settle = async (call: number, work: Promise<void>): Promise<void> => {
    try {
      await work;
      sink.flush();
      report({ kind: "answer", call });
    } catch (error) {
      fail(call, error);
    }
  };

  return (message) => {
    const command = message as ThreadCommand;
    switch (command.kind) {
      case "mesh-changed":
        return thread.meshChanged(command.change);
      case "start-workload":
        return void settle(
          command.call,
          (async () => thread.startWorkload(command.workload, command.netnsFd, command.withDns))(),
        );
      case "start-self":
        return void settle(command.call, (async () => thread.startSelf(command.workload))());
      case "listen-dedicated":
        return void settle(
          command.call,
          (async () => thread.listenDedicated(command.workload, command.withDns))(),
        );
      case "serve-dedicated":
        return void settle(command.call, (async () => thread.serveDedicated())());
      case "stop-listening":
        return void settle(command.call, (async () => thread.stopListening(command.uid))());
      case "stop-workload":
        return void settle(command.call, thread.stopWorkload(command.uid, command.drainMs));
      case "certificate":
        if (command.certificate !== undefined) asked.answer(command.call, command.certificate);
        else asked.fail(command.call, new Error(command.error ?? "no certificate"));
        return;
      case "learnt":
        return learning.answer(command.call);
      case "addresses":
        if (command.ips !== undefined) lookups.answer(command.call, command.ips);
        else lookups.fail(command.call, new Error(command.error ?? "no answer"));
        return;
      case "renewed":
        return certificates.renewed(command.certificate);
      case "forgotten":
        return certificates.forgotten(command.identity);
      case "revocations":
        return thread.revocationsChanged(command.lists);
      case "log-filter":
        return logger.setFilter(command.filter);
      case "collect":
        return void reportSample(command.call);
      case "connections":
        return void settle(command.call, reportConnections(command.call, command.uid));
      case "dns-datagrams": {
        const { call, uid } = command;
        return void thread
          .dnsDatagrams(uid)
          .then((datagrams) => report({ kind: "answer", call, datagrams }));
      }
      case "profile":
        return void profiler.run(command.request).then(
          (profile) => report({ kind: "answer", call: command.call, profile }),
          (error: unknown) => fail(command.call, error),
        );
      case "drain":
        return void settle(command.call, thread.drain(command.deadlineMs));
      case "close":
        return void settle(command.call, thread.close());
    }
  };
}
