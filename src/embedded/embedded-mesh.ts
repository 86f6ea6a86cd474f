/**
 * The command `ztunnel embedded-mesh`: what stands in for istiod on one machine. It serves discovery
 * and certificates on one port, for the mesh of one file, which it follows.
 */
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { aborted, systemClock } from "../runtime/clock.ts";
import { counted } from "../runtime/counted.ts";
import { CaService } from "./ca-service.ts";
import { CallerCheck, tokenFileNotes } from "./caller-check.ts";
import { EmbeddedAuthority, ROOT_FILE } from "./certificate-authority.ts";
import { ControlPlaneServer } from "./control-plane-server.ts";
import { DiscoveryService } from "./discovery-service.ts";
import { KUBERNETES_DEFAULTS } from "./kubernetes-mesh.ts";
import { MeshFile } from "./mesh-file.ts";
import type { MeshSnapshot } from "./mesh-snapshot.ts";

export interface EmbeddedMeshOptions {
  /**
   * The mesh, in the format of LOCAL_XDS_PATH or as Kubernetes objects. Only identities of its
   * workloads are signed.
   */
  readonly file: string;
  /** `host:port` of both services. */
  readonly listen: string;
  /** Where the authority's key and `root-cert.pem` are kept; made if it is not there. */
  readonly stateDir: string;
  /** Whoever shows this file's text as bearer token may speak for every node. */
  readonly tokenFile?: string | undefined;
  /** Node → file with the token of its proxy. Without any file at all, anyone may call. */
  readonly nodeTokenFiles?: ReadonlyMap<string, string> | undefined;
  /** Stops the mesh. */
  readonly signal: AbortSignal;
  /** Takes what there is to say, line by line; default standard output. */
  readonly report?: (line: string) => void;
}

/**
 * Runs until the signal. Says in one line where it listens as soon as it does, and then who comes,
 * what is pushed, signed and refused.
 *
 * @throws LocalMeshError, or Error when the state directory or the address can't be used.
 */
export async function runEmbeddedMesh(options: EmbeddedMeshOptions): Promise<void> {
  const report = options.report ?? ((line: string) => console.log(line));
  const file = new MeshFile(options.file);
  const authority = await EmbeddedAuthority.open(systemClock, options.stateDir);
  const { tokenFile, nodeTokenFiles = new Map<string, string>() } = options;
  const callers = new CallerCheck({
    tokenFile,
    nodeTokenFiles,
    // What callers say unless they are told otherwise, as everywhere in Istio.
    clusterId: KUBERNETES_DEFAULTS.clusterId,
  });
  const discovery = new DiscoveryService({
    callers,
    snapshot: file.snapshot,
    clock: systemClock,
    report,
  });
  const ca = new CaService({
    authority,
    callers,
    hasIdentity: (identity, node) => file.snapshot.hasIdentity(identity, node),
    report,
  });
  const host = options.listen.slice(0, options.listen.lastIndexOf(":"));
  const server = await ControlPlaneServer.start(
    { authority, services: [discovery, ca] },
    {
      listen: options.listen,
      names: [...localAddresses(), host.replace(/^\[(.*)\]$/, "$1")],
    },
  );
  const address = `https://${host}:${server.port}`;
  const root = join(options.stateDir, ROOT_FILE);
  report(
    `mesh of ${describe(file.snapshot)}: XDS_ADDRESS=${address} XDS_ROOT_CA=${root} ` +
      `CA_ADDRESS=${address} CA_ROOT_CA=${root}`,
  );
  for (const note of file.notes) report(note);
  file.follow({
    clock: systemClock,
    changed(snapshot) {
      report(`the mesh has changed: ${describe(snapshot)}`);
      for (const note of file.notes) report(note);
      discovery.update(snapshot);
    },
    refused(mistakes) {
      for (const mistake of mistakes) report(`keeping the former mesh: ${mistake}`);
    },
  });
  for (const note of await tokenFileNotes({ tokenFile, nodeTokenFiles })) report(note);
  await aborted(options.signal);
  file.close();
  const ended = server.shutDown();
  discovery.close();
  await ended;
}

function describe({ addresses, authorizations, identityCount }: MeshSnapshot): string {
  return [
    counted(addresses.size, "workload or service", "workloads and services"),
    counted(authorizations.size, "policy", "policies"),
    counted(identityCount, "identity", "identities"),
  ].join(", ");
}

/** By any of its addresses a proxy on this machine, or in a namespace of it, may call. */
function localAddresses(): readonly string[] {
  return Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .map(({ address }) => address)
    .filter((address) => !address.startsWith("fe80:"));
}
