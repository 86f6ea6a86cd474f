/** What a real istiod and its clients said, from test/fixtures/istiod. */
import { readdirSync, readFileSync } from "node:fs";
import {
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponse,
  deltaDiscoveryMethod,
} from "../../src/wire/delta-discovery.ts";

const ROOT = new URL("../fixtures/istiod/", import.meta.url);

/** One message on the wire, in the order of the recording. */
export type RecordedMessage =
  | { readonly from: "client"; readonly request: DeltaDiscoveryRequest }
  | { readonly from: "server"; readonly response: DeltaDiscoveryResponse };

/** A folder of `xds/`: one action and what came of it. */
export interface RecordedScenario {
  readonly name: string;
  readonly messages: readonly RecordedMessage[];
}

/** All of `xds/`, sorted by name. */
export function recordedScenarios(): readonly RecordedScenario[] {
  return readdirSync(new URL("xds/", ROOT), { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => ({ name, messages: readMessages(`xds/${name}`) }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** The scenario whose name begins with this number, as `01`. */
export function recordedScenario(number: string): RecordedScenario {
  const found = recordedScenarios().find(({ name }) => name.startsWith(`${number}-`));
  if (found === undefined) throw new Error(`no recorded scenario ${number}`);
  return found;
}

/** Both directions of the original's discovery stream, `base` or `full`. */
export function recordedOriginal(which: "base" | "full"): readonly RecordedMessage[] {
  return readMessages(`real-ztunnel/${which}/wire`, (file) => file.includes("Delta"));
}

/** A file of the recording as text. */
export function recordedText(path: string): string {
  return readFileSync(new URL(path, ROOT), "utf8");
}

/** A file of the recording as it was on the wire. */
export function recordedBytes(path: string): Buffer {
  return readFileSync(new URL(path, ROOT));
}

function readMessages(
  folder: string,
  wanted: (file: string) => boolean = () => true,
): RecordedMessage[] {
  const files = readdirSync(new URL(`${folder}/`, ROOT)).sort();
  return files
    .filter((file) => file.endsWith(".bin") && wanted(file))
    .map((file) => {
      const bytes = readFileSync(new URL(`${folder}/${file}`, ROOT));
      return /request|client/.test(file)
        ? { from: "client", request: deltaDiscoveryMethod.requestDeserialize(bytes) }
        : { from: "server", response: deltaDiscoveryMethod.responseDeserialize(bytes) };
    });
}
