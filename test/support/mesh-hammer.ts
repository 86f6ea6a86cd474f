/**
 * A reader thread that looks things up as fast as it can and checks each answer by itself; see
 * test/state/mesh-threads.test.ts for what is written meanwhile.
 */
import { parentPort, workerData } from "node:worker_threads";
import type { Workload } from "../../src/mesh/workload.ts";
import { MeshMemory } from "../../src/state/mesh-memory.ts";
import { MeshState } from "../../src/state/mesh-state.ts";
import { ip, mesh } from "./mesh-fixture.ts";

/** What the reader found. */
export interface HammerResult {
  readonly lookups: number;
  /** Answers that can't be true of any moment. */
  readonly mistakes: readonly string[];
}

export interface HammerOptions {
  readonly buffer: SharedArrayBuffer;
  /** Set to 1 to end it. */
  readonly stop: SharedArrayBuffer;
  /** Workloads 0 to this, at {@link steadyAddress}, are always known; the service has them all. */
  readonly steady: number;
}

/** Of a workload that is replaced again and again and never missing. */
export function steadyAddress(i: number): string {
  return `10.1.${i >> 8}.${i & 255}`;
}

/** Every text of one version says the same number. */
function isWhole(workload: Workload): boolean {
  const { canonicalRevision, workloadName, node } = workload;
  return (
    workloadName === `${canonicalRevision}-${"x".repeat(Number(canonicalRevision) % 400)}` &&
    node === canonicalRevision
  );
}

if (parentPort !== null && workerData !== null) {
  const { buffer, stop, steady } = workerData as HammerOptions;
  parentPort.postMessage("ready");
  parentPort.postMessage(
    hammer(new MeshState(new MeshMemory(buffer)), new Int32Array(stop), steady),
  );
}

function hammer(state: MeshState, stop: Int32Array, steady: number): HammerResult {
  const mistakes: string[] = [];
  const crowd = mesh.service("crowd").value;
  const source = mesh.workload("source").value;
  let lookups = 0;
  const check = (isTrue: boolean, what: string): void => {
    lookups++;
    if (!isTrue && mistakes.length < 10) mistakes.push(what);
  };
  while (Atomics.load(stop, 0) === 0) {
    const i = lookups % steady;
    const address = ip(steadyAddress(i));
    const found = state.findWorkloadByAddress("", address);
    check(found?.ips[0] === address && isWhole(found), `${address}: ${JSON.stringify(found)}`);
    const byUid = found && state.findWorkload(found.uid);
    check(byUid?.ips[0] === address && isWhole(byUid), `uid ${found?.uid}`);
    const service = state.findServiceByVip("", ip("10.96.0.1"), "default");
    check(service?.service.hostname === crowd.hostname, "no service at its address");
    const size = service?.endpoints.size ?? 0;
    check(size >= steady, `${size} endpoints`);
    const endpoint = service?.endpoints.at(i);
    check(endpoint === undefined || isWhole(endpoint), `endpoint ${endpoint?.uid}`);
    check(endpoint === undefined || endpoint.services.size === 1, `services of ${endpoint?.uid}`);
    if (i % 16 !== 0) continue;
    const survey = service?.endpoints.survey(source);
    check((survey?.refs.length ?? 0) >= steady, `${survey?.refs.length} surveyed`);
    const { policies } = state.policiesFor(source);
    check(policies.length === 1, `${policies.length} policies`);
  }
  return { lookups, mistakes };
}
