/**
 * `/config_dump`: everything the daemon knows, in the original's shape, as a stream of text. Meshes
 * are large, so it is made in slices: what changes meanwhile may or may not be in it.
 *
 * @see spec control-plane 7.2
 */
import type { CertificateEntry } from "../identity/certificate-cache.ts";
import { type AuthorizationPolicy, policyKey } from "../mesh/authorization.ts";
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { NamespacedHostname } from "../mesh/gateway-address.ts";
import type { MeshUpdate } from "../mesh/mesh-update.ts";
import type { PortMap, Workload } from "../mesh/workload.ts";
import type { LiveConnections } from "../proxy/connection-report.ts";
import type { Clock } from "../runtime/clock.ts";
import { Pace } from "../runtime/pace.ts";
import type { KnownService } from "../state/mesh-state.ts";
import { dumpConnection } from "./connection-dump.ts";
import { compareText, formatJson } from "./json-text.ts";
import {
  type Dumped,
  type DumpedEndpoint,
  dumpEndpoints,
  dumpPolicy,
  dumpService,
  dumpWorkload,
} from "./mesh-dump.ts";

/** Port: the mesh as it is known now. Lists are in no order; what they name may be gone by then. */
export interface DumpedMesh {
  workloadUids(): readonly string[];
  findWorkload(uid: string): Workload | undefined;
  serviceNames(): readonly NamespacedHostname[];
  findService(namespace: string, hostname: string): KnownService | undefined;
  policies(): readonly AuthorizationPolicy[];
}

export interface DumpedWorkload {
  readonly workload: EnrolledWorkload;
  /** The last one is ours: it has left, and connections of it go on. */
  readonly state: "Pending" | "Up" | "Draining";
}

export interface ConfigDumpDeps {
  readonly mesh: DumpedMesh;
  readonly certificates: () => readonly CertificateEntry[];
  /** Every workload handed over by the node agent, each once. */
  readonly workloads: () => readonly DumpedWorkload[];
  readonly connections: (uid: string) => Promise<LiveConnections>;
  /** What the local mesh file says now; empty when there is none or it can't be read. */
  readonly localMesh: () => readonly MeshUpdate[];
  readonly clock: Clock;
}

export interface ConfigDumpOptions {
  /** The section `config`: no secrets. */
  readonly config: object;
  /** The section `version`. */
  readonly version: object;
}

/** How long the thread is kept at a time. */
const SLICE_MS = 2;
/** Of a member of a section. */
const INDENT = "    ";
/** Text is handed on in pieces of about this many characters. */
const PIECE_LENGTH = 65_536;

export async function* configDump(
  deps: ConfigDumpDeps,
  { config, version }: ConfigDumpOptions,
): AsyncGenerator<string> {
  const pace = new Pace(deps.clock, SLICE_MS);
  const { mesh } = deps;
  const uids = [...mesh.workloadUids()].sort(compareText);
  const staged = await stagedEndpoints(mesh, uids, pace);
  const sections: readonly AsyncIterable<string>[] = [
    section("certificates", "[]", items(deps.certificates()), pace),
    whole("config", config),
    section("policies", "[]", dumpPolicies(mesh), pace),
    section("services", "[]", dumpServices(mesh), pace),
    section("stagedServices", "{}", staged, pace),
    whole("staticConfig", dumpLocalMesh(deps.localMesh())),
    whole("version", version),
    section("workloadState", "{}", dumpWorkloadStates(deps), pace),
    section("workloads", "[]", dumpWorkloads(mesh, uids), pace),
  ];
  let separator = "{\n  ";
  for (const pieces of sections) {
    yield separator;
    yield* pieces;
    separator = ",\n  ";
  }
  yield "\n}\n";
}

async function* whole(name: string, value: object): AsyncGenerator<string> {
  yield member(name, value, "  ");
}

/** @param members each as text that is indented for its place. */
async function* section(
  name: string,
  [open, close]: "[]" | "{}",
  members: Iterable<string> | AsyncIterable<string>,
  pace: Pace,
): AsyncGenerator<string> {
  let piece = `${JSON.stringify(name)}: ${open}`;
  let isEmpty = true;
  for await (const text of members) {
    piece += `${isEmpty ? "" : ","}\n${INDENT}${text}`;
    isEmpty = false;
    if (piece.length >= PIECE_LENGTH) {
      yield piece;
      piece = "";
    }
    if (pace.isOver) await pace.rest();
  }
  yield `${piece}${isEmpty ? "" : "\n  "}${close}`;
}

function* items(values: Iterable<object>): Generator<string> {
  for (const value of values) yield formatJson(value, INDENT);
}

function member(name: string, value: object, indent: string): string {
  return `${JSON.stringify(name)}: ${formatJson(value, indent)}`;
}

function dumpPolicies(mesh: DumpedMesh): Iterable<string> {
  const policies = [...mesh.policies()].sort((a, b) => compareText(policyKey(a), policyKey(b)));
  return items(policies.map(dumpPolicy));
}

function* dumpServices(mesh: DumpedMesh): Generator<string> {
  const names = [...mesh.serviceNames()].sort(
    (a, b) => compareText(a.hostname, b.hostname) || compareText(a.namespace, b.namespace),
  );
  for (const { namespace, hostname } of names) {
    const known = mesh.findService(namespace, hostname);
    if (known === undefined) continue;
    const key = formatServiceName({ namespace, hostname });
    const endpoints = Array.from(known.endpoints.values(), (workload) =>
      endpointOf(workload, workload.services.get(key)),
    );
    yield formatJson(dumpService(known.service, endpoints), INDENT);
  }
}

function* dumpWorkloads(mesh: DumpedMesh, uids: readonly string[]): Generator<string> {
  for (const uid of uids) {
    const workload = mesh.findWorkload(uid);
    if (workload !== undefined) yield formatJson(dumpWorkload(workload), INDENT);
  }
}

/** What workloads offer to services that are not known. */
async function stagedEndpoints(
  mesh: DumpedMesh,
  uids: readonly string[],
  pace: Pace,
): Promise<Iterable<string>> {
  const known = new Set(mesh.serviceNames().map(formatServiceName));
  const staged = new Map<string, DumpedEndpoint[]>();
  for (const uid of uids) {
    const workload = mesh.findWorkload(uid);
    for (const [key, ports] of workload?.services ?? []) {
      if (workload === undefined || known.has(key)) continue;
      const endpoint = endpointOf(workload, ports);
      const endpoints = staged.get(key);
      if (endpoints === undefined) staged.set(key, [endpoint]);
      else endpoints.push(endpoint);
    }
    if (pace.isOver) await pace.rest();
  }
  const sorted = [...staged].sort(([a], [b]) => compareText(a, b));
  return sorted.map(([key, endpoints]) => member(key, dumpEndpoints(endpoints), INDENT));
}

function endpointOf({ uid, status }: Workload, ports: PortMap = new Map()): DumpedEndpoint {
  return { workloadUid: uid, ports, status };
}

/** One workload at a time: their connections may be many. */
async function* dumpWorkloadStates(deps: ConfigDumpDeps): AsyncGenerator<string> {
  const sorted = [...deps.workloads()].sort((a, b) => compareText(a.workload.uid, b.workload.uid));
  for (const { workload, state } of sorted) {
    const { uid, name, namespace, serviceAccount } = workload;
    const live = state === "Pending" ? undefined : await deps.connections(uid);
    const connections = live && {
      inbound: live.inbound.map(dumpConnection),
      outbound: live.outbound.map(dumpConnection),
    };
    yield member(uid, { state, info: { name, namespace, serviceAccount }, connections }, INDENT);
  }
}

/** As the file lists it, unsorted and with nothing behind the services. */
function dumpLocalMesh(updates: readonly MeshUpdate[]): Dumped {
  return {
    policies: updates.flatMap((one) => (one.kind === "policy" ? dumpPolicy(one.policy) : [])),
    services: updates.flatMap((one) =>
      one.kind === "service" ? dumpService(one.service, []) : [],
    ),
    workloads: updates.flatMap((one) =>
      one.kind === "workload" ? dumpWorkload(one.workload) : [],
    ),
  };
}

function formatServiceName({ namespace, hostname }: NamespacedHostname): string {
  return `${namespace}/${hostname}`;
}
