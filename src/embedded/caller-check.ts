/**
 * Who calls the embedded mesh: told by bearer tokens kept in files, one for everybody or one for
 * each node, in place of the service accounts that istiod asks Kubernetes about.
 *
 * @see spec control-plane corrections A7 and B21.
 */
import { timingSafeEqual } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { Metadata } from "@grpc/grpc-js";
import { systemProblem } from "../runtime/system-problem.ts";

export interface CallerTokens {
  /** Whoever shows its text may speak for every node; read for each call. */
  readonly tokenFile: string | undefined;
  /** Node → file; whoever shows its text may speak for that node; read for each call. */
  readonly nodeTokenFiles: ReadonlyMap<string, string>;
  /** The cluster that callers may name. */
  readonly clusterId: string;
}

/** Somebody who may call. */
export interface Caller {
  /** The only node that it may speak for; `undefined`: any. */
  readonly node: string | undefined;
  /** Named our cluster; without that istiod lets nobody impersonate. */
  readonly namesCluster: boolean;
}

/** Without any token files everybody may call, and may all. */
export class CallerCheck {
  readonly #tokens: CallerTokens;

  constructor(tokens: CallerTokens) {
    this.#tokens = tokens;
  }

  /** @returns `undefined` for a stranger, and while the file with its token can't be read. */
  async identify(metadata: Metadata): Promise<Caller | undefined> {
    const { tokenFile, nodeTokenFiles, clusterId } = this.#tokens;
    if (tokenFile === undefined && nodeTokenFiles.size === 0) {
      return { node: undefined, namesCluster: true };
    }
    const [cluster] = metadata.get("clusterid");
    if (cluster !== undefined && cluster !== clusterId) return undefined;
    const namesCluster = cluster !== undefined;
    const [authorization] = metadata.get("authorization");
    const given = String(authorization);
    if (tokenFile !== undefined && (await showsTokenOf(tokenFile, given))) {
      return { node: undefined, namesCluster };
    }
    for (const [node, file] of nodeTokenFiles) {
      if (await showsTokenOf(file, given)) return { node, namesCluster };
    }
    return undefined;
  }
}

/** @returns a sentence for each file that nobody can show a token of, as it stands now. */
export async function tokenFileNotes({
  tokenFile,
  nodeTokenFiles,
}: Pick<CallerTokens, "tokenFile" | "nodeTokenFiles">): Promise<readonly string[]> {
  const files = [...(tokenFile === undefined ? [] : [tokenFile]), ...nodeTokenFiles.values()];
  const notes: string[] = [];
  for (const file of files) {
    try {
      if ((await readFile(file, "utf8")).trim() !== "") continue;
      notes.push(`the token file ${file} is empty: it lets nobody in`);
    } catch (error) {
      notes.push(
        `can't read the token file ${file} yet, so it lets nobody in: ${systemProblem(error)}`,
      );
    }
  }
  return notes;
}

async function showsTokenOf(file: string, authorization: string): Promise<boolean> {
  let token: string;
  try {
    token = (await readFile(file, "utf8")).trim();
  } catch {
    // Being replaced, or not there yet: nobody can show it.
    return false;
  }
  return token !== "" && sameText(authorization, `Bearer ${token}`);
}

/** Takes as long for a nearly right text as for a wrong one. */
function sameText(given: string, expected: string): boolean {
  const [a, b] = [Buffer.from(given), Buffer.from(expected)];
  return a.length === b.length && timingSafeEqual(a, b);
}
