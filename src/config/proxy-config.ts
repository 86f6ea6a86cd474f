/**
 * Istio's ProxyConfig: `defaultConfig` of the mesh configuration, and PROXY_CONFIG over it.
 *
 * Other keys belong to other programs and are passed over. `proxyMetadata` must be there, as the
 * original demands.
 *
 * @see spec control-plane 6.4
 */
import type { EnvironmentReader } from "./environment-reader.ts";
import { THREADS_MAX } from "./thread-count.ts";
import { YamlFile, type YamlRecord } from "./yaml-record.ts";

export interface ProxyConfig {
  /** Of the control plane, `host:port`. */
  readonly discoveryAddress: string | undefined;
  /** What the control plane is told of us; keys without the prefix ISTIO_META_. */
  readonly metadata: ReadonlyMap<string, string>;
  readonly adminPort: number | undefined;
  readonly statsPort: number | undefined;
  /** Data threads; 0 means as many as there are CPUs. */
  readonly concurrency: number | undefined;
}

const U16_MAX = 65_535;
const NOTHING: ProxyConfig = {
  discoveryAddress: undefined,
  metadata: new Map(),
  adminPort: undefined,
  statsPort: undefined,
  concurrency: undefined,
};

/** Reads PROXY_CONFIG and the mesh configuration's text; notes mistakes in the reader. */
export function readProxyConfig(
  meshConfig: string | undefined,
  reader: EnvironmentReader,
): ProxyConfig {
  const fromFile = parse(meshConfig, "./etc/istio/config/mesh", reader, (root) =>
    root.optional("defaultConfig", (value) => value.openRecord(readKnownKeys)),
  );
  const fromEnvironment = parse(reader.text("PROXY_CONFIG"), "PROXY_CONFIG", reader, readKnownKeys);
  return {
    discoveryAddress: fromEnvironment.discoveryAddress ?? fromFile.discoveryAddress,
    metadata: new Map([...fromFile.metadata, ...fromEnvironment.metadata]),
    adminPort: fromEnvironment.adminPort ?? fromFile.adminPort,
    statsPort: fromEnvironment.statsPort ?? fromFile.statsPort,
    concurrency: fromEnvironment.concurrency ?? fromFile.concurrency,
  };
}

function parse(
  text: string | undefined,
  origin: string,
  reader: EnvironmentReader,
  read: (root: YamlRecord) => ProxyConfig | undefined,
): ProxyConfig {
  if (text === undefined || text.trim() === "") return NOTHING;
  const file = new YamlFile(text, origin);
  const config = read(file.root());
  for (const mistake of file.mistakes) reader.mistake(`error parsing proxy config: ${mistake}`);
  return config ?? NOTHING;
}

function readKnownKeys(record: YamlRecord): ProxyConfig {
  const number = (key: string, max: number): number | undefined =>
    record.optional(key, (value) => value.integer(max));
  const metadata = record.required(
    "proxyMetadata",
    (value) =>
      value.map(
        (key) => key.text().replace(/^ISTIO_META_/, ""),
        (text) => text.text(),
      ),
    new Map<string, string>(),
  );
  return {
    discoveryAddress: record.optional("discoveryAddress", (value) => value.text()),
    metadata,
    adminPort: number("proxyAdminPort", U16_MAX),
    statsPort: number("statsPort", U16_MAX),
    concurrency: number("concurrency", THREADS_MAX),
  };
}
