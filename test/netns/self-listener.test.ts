/** A scraper in the mesh reaches the daemon's own metrics through a tunnel. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { connectFrom } from "../support/lab-application.ts";
import { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { waitUntil } from "../support/wait-until.ts";

const MESH = `
workloads:
- {uid: scraper, name: scraper, namespace: default, serviceAccount: scraper, trustDomain: cluster.local, workloadIps: ["10.79.0.11"], protocol: HBONE, node: node-a, services: {}}
- {uid: ztunnel-b, name: ztunnel-b, namespace: istio-system, serviceAccount: ztunnel, trustDomain: cluster.local, workloadIps: ["10.79.0.3"], protocol: HBONE, node: node-b, services: {}}
`;

test("test_hbone_metrics_access: a captured pod scrapes another node's daemon over HBONE", {
  skip: requireNetns("iptables"),
}, async () => {
  const lab = await MeshLab.start({
    nodes: {
      "node-a": { ip: "10.79.0.2", pods: [{ name: "scraper", ip: "10.79.0.11" }] },
      "node-b": {
        ip: "10.79.0.3",
        pods: [],
        environment: {
          POD_NAME: "ztunnel-b",
          POD_NAMESPACE: "istio-system",
          SERVICE_ACCOUNT: "ztunnel",
        },
      },
    },
    mesh: MESH,
    controlIp: "10.79.0.4",
    prefixLength: 24,
    gatewayIp: "10.79.0.1",
  });
  try {
    const socket = await connectFrom(lab.host("scraper"), "10.79.0.3", 15020);
    let answer = "";
    socket.on("data", (chunk: Buffer) => {
      answer += chunk.toString();
    });
    socket.write("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    await waitUntil(() => answer.includes("# EOF"), "no metrics came");
    assert.match(answer, /^HTTP\/1\.1 200 OK/);
    socket.destroy();
    const line = (): string | undefined =>
      lab.node("node-b").lines.find((one) => one.includes('direction="inbound"'));
    await waitUntil(() => line() !== undefined, "no access log line came");
    assert.match(
      line() ?? "",
      /src\.identity="spiffe:\/\/cluster\.local\/ns\/default\/sa\/scraper"/,
    );
    assert.match(line() ?? "", /dst\.addr=10\.79\.0\.3:15008 dst\.hbone_addr=10\.79\.0\.3:15020/);
  } finally {
    await lab.close();
  }
});
