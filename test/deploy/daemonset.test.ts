/** The DaemonSet: valid for the Kubernetes API, and what the mesh's neighbours expect of it. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { parseAllDocuments } from "yaml";
import { CONFIG_OPTIONS } from "../../src/config/config-option.ts";
import { missingTool } from "../support/missing-tool.ts";

const FILE = join(resolve(import.meta.dirname, "../.."), "daemonset.yaml");

interface Container {
  readonly name: string;
  readonly args: readonly string[];
  readonly env: readonly { readonly name: string }[];
  readonly readinessProbe: unknown;
  readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string }[];
  readonly securityContext: { readonly capabilities: { readonly add: readonly string[] } };
}

function daemonSet(): { container: Container; spec: Record<string, unknown> } {
  const documents = parseAllDocuments(readFileSync(FILE, "utf8"));
  const found = documents.map((one) => one.toJS()).find(({ kind }) => kind === "DaemonSet");
  const spec = found.spec.template.spec;
  return { container: spec.containers[0], spec: found.spec };
}

/** The schema checker of PyPI. */
function missingValidator(): string | false {
  const found = spawnSync("kubernetes-validate", ["--version"]).error === undefined;
  if (found) return false;
  return missingTool("kubernetes-validate is not installed (pip install kubernetes-validate)");
}

test("daemonset.yaml is valid for the Kubernetes API", { skip: missingValidator() }, () => {
  execFileSync("kubernetes-validate", ["--strict", FILE], { stdio: "pipe" });
});

test("the pod is found where istioctl and the charts look for it", () => {
  const { container, spec } = daemonSet();
  assert.equal(container.name, "istio-proxy");
  assert.deepEqual(container.args, ["proxy", "ztunnel"]);
  assert.deepEqual(spec["selector"], { matchLabels: { app: "ztunnel" } });
});

test("the container has the three capabilities that the addon needs, and no more", () => {
  const { add } = daemonSet().container.securityContext.capabilities;
  assert.deepEqual(add, ["NET_ADMIN", "SYS_ADMIN", "NET_RAW"]);
});

test("every variable that is set is one that the daemon reads", () => {
  const isRead = (variable: string): boolean =>
    CONFIG_OPTIONS.some(({ name }) =>
      name.endsWith("*") ? variable.startsWith(name.slice(0, -1)) : variable === name,
    );
  const unread = daemonSet().container.env.filter(({ name }) => !isRead(name));
  assert.deepEqual(unread, []);
});

test("what Istio's own chart gives the original's container, ours has as well", () => {
  // The chart of Istio 1.31; RUST_BACKTRACE and INPOD_ENABLED are of no use here.
  const { container } = daemonSet();
  const names = container.env.map(({ name }) => name);
  const missing = [
    ...["CA_ADDRESS", "XDS_ADDRESS", "RUST_LOG", "ISTIO_META_CLUSTER_ID"],
    ...["TERMINATION_GRACE_PERIOD_SECONDS", "POD_NAME", "POD_NAMESPACE", "NODE_NAME"],
    ...["INSTANCE_IP", "SERVICE_ACCOUNT", "ZTUNNEL_CPU_LIMIT", "ZTUNNEL_RESOURCE_CPU_REQUEST"],
  ].filter((name) => !names.includes(name));
  assert.deepEqual(missing, []);
  assert.deepEqual(container.readinessProbe, {
    httpGet: { path: "/healthz/ready", port: 15021 },
  });
  assert.deepEqual(
    container.volumeMounts.map(({ mountPath }) => mountPath),
    ["/var/run/secrets/istio", "/var/run/secrets/tokens", "/var/run/ztunnel", "/tmp"],
  );
});
