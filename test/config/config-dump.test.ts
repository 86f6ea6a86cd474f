import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { dumpConfig } from "../../src/config/config-dump.ts";
import { parseConfig } from "../../src/config/config-parser.ts";
import type { Host } from "../../src/config/environment-reader.ts";
import { recordedText } from "../support/istiod-recording.ts";

/** What the environment of the recorded original comes to. */
const ENVIRONMENT = {
  NODE_NAME: "node1",
  POD_NAME: "ztunnel-node1",
  POD_NAMESPACE: "istio-system",
  SERVICE_ACCOUNT: "ztunnel",
  XDS_ROOT_CA: "/var/run/secrets/istio/root-cert.pem",
  CA_ROOT_CA: "/var/run/secrets/istio/root-cert.pem",
  XDS_ADDRESS: "https://localhost:15012",
  ZTUNNEL_WORKER_THREADS: "2",
  ISTIO_META_CLUSTER_ID: "Kubernetes",
  // Its default.
  KEEPALIVE_INTERVAL: "180s",
  ISTIO_META_ENABLE_HBONE: "true",
  ISTIO_META_ISTIO_VERSION: "1.31.0",
};

const MACHINE: Host = { cpuCount: 2, fileExists: () => false, readText: () => "" };

/** What is not there, or not yet, or has another default. */
const DIFFERENT = new Set(["dnsResolverCfg", "dnsResolverOpts", "localhostAppTunnel", "proxyArgs"]);

test("the configuration is dumped as the original dumps the same", () => {
  const recorded = JSON.parse(recordedText("real-ztunnel/full/config_dump.json")) as {
    config: Record<string, unknown>;
  };
  const dumped = dumpConfig(parseConfig(ENVIRONMENT, undefined, MACHINE));
  assert.deepEqual(Object.keys(dumped).sort(), Object.keys(recorded.config).sort());
  for (const [key, value] of Object.entries(recorded.config)) {
    if (!DIFFERENT.has(key)) assert.deepEqual(dumped[key], value, key);
  }
});

test("headers that prove something and a literal token are not dumped", () => {
  const dumped = dumpConfig(
    parseConfig(
      {
        ...ENVIRONMENT,
        AUTH_TOKEN: "s3cret",
        "XDS_HEADER_X-Mesh": "blue",
        XDS_HEADER_Authorization: "Bearer s3cret",
        "CA_HEADER_X-Api-Key": "s3cret",
      },
      undefined,
    ),
  );
  assert.deepEqual(dumped["xdsHeaders"], [
    ["x-mesh", "blue"],
    ["authorization", "<hidden>"],
  ]);
  assert.deepEqual(dumped["caHeaders"], [["x-api-key", "<hidden>"]]);
  assert.ok(!JSON.stringify(dumped).includes("s3cret"));
});

test("nameservers are dumped as the file has them, and nothing where DNS is off", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "ztunnel-dump-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "resolv.conf");
  writeFileSync(path, "search mesh.example\nnameserver 10.96.0.10\noptions timeout:2\n");
  const config = parseConfig(ENVIRONMENT, undefined, MACHINE);
  assert.ok(config.dns);
  const dumped = dumpConfig({ ...config, dns: { ...config.dns, resolvConfPath: path } });
  const servers = [{ ip: "10.96.0.10" }];
  assert.deepEqual(dumped["dnsResolverCfg"], {
    domain: null,
    name_servers: servers,
    search: ["mesh.example"],
  });
  assert.deepEqual(dumped["dnsResolverOpts"], { attempts: 2, timeout: 2 });
  const absent = { ...config.dns, resolvConfPath: join(folder, "none") };
  assert.equal(dumpConfig({ ...config, dns: absent })["dnsResolverCfg"], null);
  const off = dumpConfig({ ...config, dns: undefined });
  assert.deepEqual([off["dnsProxy"], off["dnsProxyAddr"]], [false, null]);
});
