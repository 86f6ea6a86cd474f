/** `/debug/why`: what becomes of a connection from one party to another, and why. */
import type { CertificateEntry } from "../identity/certificate-cache.ts";
import { formatSpiffeId } from "../mesh/identity.ts";
import { formatHostPort, formatSocketAddress, type SocketAddress } from "../mesh/socket-address.ts";
import { type Workload, workloadIdentity } from "../mesh/workload.ts";
import type { ProbeOutcome } from "../net/connection-probe.ts";
import {
  type ConnectionForecast,
  type ForecastQuery,
  forecastConnection,
} from "../proxy/connection-forecast.ts";
import type { Random } from "../runtime/random.ts";
import type { MeshState } from "../state/mesh-state.ts";
import type { SessionAffinity } from "../state/session-affinity.ts";
import { AdminError } from "./admin-error.ts";
import type { DumpedWorkload } from "./config-dump.ts";
import { WhyParties } from "./why-parties.ts";

export interface WhyReport extends ConnectionForecast {
  /** What else is to be known of the answer. */
  readonly notes: readonly string[];
  readonly source: {
    readonly address: string;
    /** `namespace/name`; `null`: the mesh does not know it. */
    readonly workload: string | null;
    readonly node: string | null;
    /** Whether this daemon carries it: `Up`, `Pending`, `Draining` or `no`. */
    readonly enrolled: string;
  };
  readonly destination: { readonly address: string; readonly name: string | null };
  /** By which a captured source proves who it is; `null` where nothing is proved. */
  readonly certificate: {
    readonly identity: string;
    /** `Available` and the like; `none` where nobody has asked for it here. */
    readonly state: string;
    readonly expirationTime: string | null;
  } | null;
  /** Of a connection that was made to see; `null`: none was. */
  readonly connect: {
    readonly state: ProbeOutcome["state"];
    readonly end: string | null;
    readonly tookMs: number;
    /** `src.addr` of its access line. */
    readonly source: string | null;
  } | null;
}

export interface WhyQuestion {
  readonly source: string;
  readonly destination: string;
  /** Also make a connection, from the source's network namespace. */
  readonly connect: boolean;
}

export interface WhyDeps {
  readonly mesh: MeshState;
  readonly outliers: ForecastQuery["outliers"];
  readonly affinity: SessionAffinity;
  readonly certificates: () => readonly CertificateEntry[];
  readonly workloads: () => readonly DumpedWorkload[];
  /** @returns `undefined` for a workload that does not run here. */
  readonly probe: (uid: string, target: SocketAddress) => Promise<ProbeOutcome> | undefined;
  readonly random: Random;
}

export interface WhyOptions
  extends Pick<ForecastQuery, "network" | "illegalPorts" | "unknownPolicy"> {
  /** The mesh is known as far as connections have needed it (`XDS_ON_DEMAND`). */
  readonly onDemand: boolean;
}

/** @throws AdminError `question` */
export async function reportWhy(
  deps: WhyDeps,
  options: WhyOptions,
  question: WhyQuestion,
): Promise<WhyReport> {
  const { mesh, outliers, affinity, random } = deps;
  const parties = new WhyParties(mesh, options.network);
  const source = parties.source(question.source);
  const { address, name } = parties.destination(question.destination, source);
  const { workload } = source;
  const enrolmentOf = (one: Workload | undefined): DumpedWorkload | undefined =>
    deps
      .workloads()
      .find(({ workload: here }) => here.namespace === one?.namespace && here.name === one.name);
  const enrolment = enrolmentOf(workload);
  const query: ForecastQuery = {
    ...options,
    ...{ outliers, affinity, source, target: address },
    isCaptured(one) {
      const state = enrolmentOf(one)?.state;
      return one.protocol === "HBONE" || state === "Up" || state === "Pending";
    },
  };
  const forecast = forecastConnection(mesh, query, random);
  const connect = question.connect ? await probe(deps, enrolment, address, question.source) : null;
  return {
    notes: options.onDemand
      ? ["the mesh is known here as far as connections have needed it (XDS_ON_DEMAND)"]
      : [],
    source: {
      address: source.ip,
      workload: workload ? `${workload.namespace}/${workload.name}` : null,
      node: workload?.node ?? null,
      enrolled: enrolment?.state ?? "no",
    },
    destination: { address: formatSocketAddress(address), name: name ?? null },
    ...forecast,
    certificate:
      workload !== undefined && forecast.route.kind === "hbone"
        ? describeCertificate(formatSpiffeId(workloadIdentity(workload)), deps.certificates())
        : null,
    connect,
  };
}

async function probe(
  deps: WhyDeps,
  enrolment: DumpedWorkload | undefined,
  address: SocketAddress,
  name: string,
): Promise<WhyReport["connect"]> {
  const asked = enrolment && deps.probe(enrolment.workload.uid, address);
  if (asked === undefined) {
    throw new AdminError(
      "question",
      `can't connect from ${name}: it is no pod whose namespace was handed over here`,
    );
  }
  const { state, end = null, tookMs, source } = await asked;
  return {
    state,
    end,
    tookMs: Math.round(tookMs),
    source: source ? formatHostPort(source.ip, source.port) : null,
  };
}

function describeCertificate(
  identity: string,
  entries: readonly CertificateEntry[],
): WhyReport["certificate"] {
  const entry = entries.find((one) => one.identity === identity);
  return {
    identity,
    state: entry?.state ?? "none",
    expirationTime: entry?.certChain[0]?.expirationTime ?? null,
  };
}
