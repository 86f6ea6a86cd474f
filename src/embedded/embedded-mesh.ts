/**
 * The command `ztunnel embedded-mesh`: what stands in for istiod on one machine. For now that is
 * its certificate authority; the daemons read the same mesh file themselves.
 */
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { readLocalMeshFile } from "../config/local-mesh-file.ts";
import { formatSpiffeId } from "../mesh/identity.ts";
import { workloadIdentity } from "../mesh/workload.ts";
import { systemClock } from "../runtime/clock.ts";
import { CaServer } from "./ca-server.ts";
import { EmbeddedAuthority, ROOT_FILE } from "./certificate-authority.ts";

export interface EmbeddedMeshOptions {
  /** The mesh: format of LOCAL_XDS_PATH. Only identities of its workloads are signed. */
  readonly file: string;
  /** `host:port` of the CA service. */
  readonly listen: string;
  /** Where the authority's key and `root-cert.pem` are kept; made if it is not there. */
  readonly stateDir: string;
  /** Callers have to show this file's text as their bearer token; `undefined`: anyone may call. */
  readonly tokenFile?: string | undefined;
  /** Stops the mesh. */
  readonly signal: AbortSignal;
  /** Takes what there is to say, line by line; default standard output. */
  readonly report?: (line: string) => void;
}

/** What callers with a token say unless they are told otherwise, as everywhere in Istio. */
const CLUSTER_ID = "Kubernetes";

/**
 * Runs until the signal. Says in one line where it listens as soon as it does, and then what it
 * signs and refuses.
 *
 * @throws LocalMeshError, or Error when the state directory or the address can't be used.
 */
export async function runEmbeddedMesh(options: EmbeddedMeshOptions): Promise<void> {
  const report = options.report ?? ((line: string) => console.log(line));
  let identities = identitiesOf(options.file);
  const host = options.listen.slice(0, options.listen.lastIndexOf(":"));
  const authority = await EmbeddedAuthority.open(systemClock, options.stateDir);
  const server = await CaServer.start(
    {
      authority,
      isKnown(identity) {
        const id = formatSpiffeId(identity);
        if (identities.has(id)) return true;
        // Perhaps the file has been edited: whoever adds a workload need not restart the mesh.
        identities = reread(options.file, report) ?? identities;
        return identities.has(id);
      },
      report,
    },
    {
      listen: options.listen,
      names: [...localAddresses(), host.replace(/^\[(.*)\]$/, "$1")],
      tokenFile: options.tokenFile,
      clusterId: CLUSTER_ID,
    },
  );
  const root = join(options.stateDir, ROOT_FILE);
  report(
    `certificate authority for ${identities.size} identities: ` +
      `CA_ADDRESS=https://${host}:${server.port} CA_ROOT_CA=${root}`,
  );
  await aborted(options.signal);
  server.close();
}

function identitiesOf(file: string): ReadonlySet<string> {
  const identities = new Set<string>();
  for (const update of readLocalMeshFile(file)) {
    if (update.kind === "workload")
      identities.add(formatSpiffeId(workloadIdentity(update.workload)));
  }
  return identities;
}

/** @returns `undefined` while the file has mistakes; it may be half written. */
function reread(file: string, report: (line: string) => void): ReadonlySet<string> | undefined {
  try {
    return identitiesOf(file);
  } catch (error) {
    report(`keeping the former mesh: ${error instanceof Error ? error.message : error}`);
    return undefined;
  }
}

/** By any of its addresses a proxy on this machine, or in a namespace of it, may call. */
function localAddresses(): readonly string[] {
  return Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .map(({ address }) => address)
    .filter((address) => !address.startsWith("fe80:"));
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
