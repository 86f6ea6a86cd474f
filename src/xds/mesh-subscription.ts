/**
 * The two types of resources that make up the mesh, each on its way into the mesh's memory; what
 * changed is told at the end of each response.
 */
import type { MeshCommit, MeshWriter } from "../state/mesh-writer.ts";
import { ADDRESS_TYPE, AUTHORIZATION_TYPE } from "../wire/delta-discovery.ts";
import type { ResourceSink, SubscribedType } from "./delta-client.ts";

/** Tells of what a response changed; readers could see it before. */
export type MeshCommitted = (commit: MeshCommit) => void;

/** @returns types in the order in which they are asked for. */
export function meshSubscription(
  deps: { readonly writer: MeshWriter; readonly committed: MeshCommitted },
  options: { readonly onDemand: boolean },
): readonly SubscribedType[] {
  return [
    { url: ADDRESS_TYPE, onDemand: options.onDemand, sink: addressSink(deps) },
    { url: AUTHORIZATION_TYPE, onDemand: false, sink: policySink(deps) },
  ];
}

type SinkDeps = Parameters<typeof meshSubscription>[0];

/** Workloads and services. */
function addressSink(deps: SinkDeps): ResourceSink {
  const { writer } = deps;
  return {
    ...bookkeeping(deps, "address"),
    put: (_name, version, bytes) => writer.putAddress(bytes, version),
    // An earlier version stays; without one, nobody is known there.
    refused: () => {},
    refusals: () => [],
    remove: (name) => writer.removeAddress(name),
  };
}

/** Authorization policies. */
function policySink(deps: SinkDeps): ResourceSink {
  const { writer } = deps;
  return {
    ...bookkeeping(deps, "policy"),
    put: (_name, version, bytes) => writer.putPolicy(bytes, version),
    refused: (name, bytes) => writer.refusePolicy(name, bytes),
    refusals: () => Array.from(writer.refusals(), ({ name }) => name),
    remove: (name) => writer.removePolicy(name),
  };
}

function bookkeeping(
  { writer, committed }: SinkDeps,
  kind: "address" | "policy",
): Pick<ResourceSink, "commit" | "versionOf" | "versions"> {
  return {
    commit: () => committed(writer.commit()),
    versionOf: (name) => writer.versionOf(kind, name),
    versions: () => writer.versions(kind),
  };
}
