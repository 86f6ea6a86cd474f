/**
 * Applications in pods that call through SOCKS5: curl, and clients that do not keep to the rules. The
 * titles are the names of the original's tests.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { parseJsonLine } from "../support/access-line.ts";
import { curl, HTTP_BODY, serveHttp } from "../support/curl.ts";
import { connectFrom, type LabServer } from "../support/lab-application.ts";
import type { LabNode } from "../support/lab-node.ts";
import type { MeshLab } from "../support/mesh-lab.ts";
import { sampleSum } from "../support/metrics-text.ts";
import { requireNetns } from "../support/netns-lab.ts";
import {
  ADDRESS,
  APP_PORT,
  ECHO_VIP,
  IPV6_ADDRESS,
  readingEnd,
  startTwoNodes,
} from "../support/two-nodes.ts";
import { waitUntil } from "../support/wait-until.ts";

/** What curl says of a connection that ends without an answer. */
const CUT = /Empty reply|reset by peer/;
const timeout = 120_000;

describe("SOCKS5", { skip: requireNetns("iptables", "curl"), concurrency: false }, () => {
  let lab: MeshLab;
  const servers: LabServer[] = [];
  before(async () => {
    lab = await startTwoNodes({
      environmentOf: { "node-a": { UNSTABLE_ENABLE_SOCKS5: "true" } },
    });
    for (const name of ["server", "outside"]) servers.push(serveHttp(lab.host(name), APP_PORT));
  });
  after(async () => {
    for (const server of servers) server.close();
    await lab?.close();
  });

  const call = (url: string): Promise<string> => curl(lab.net, lab.host("client"), url);

  const fieldsOfLast = async (node: LabNode, count: number): Promise<Map<string, string>> => {
    const lines = (): string[] => node.lines.filter((line) => line.includes('"scope":"access"'));
    await waitUntil(() => lines().length > count, "no access line");
    return new Map(parseJsonLine(lines()[count] ?? "").fields);
  };

  const TARGETS = {
    test_hbone_request: [`${ADDRESS.server}:${APP_PORT}`, `${ADDRESS.server}:15008`],
    test_tcp_request: [`${ADDRESS.outside}:${APP_PORT}`, `${ADDRESS.outside}:${APP_PORT}`],
    test_vip_request: [`${ECHO_VIP}:80`, `${ADDRESS.server}:15008`],
    "a request by IPv6": [`[${IPV6_ADDRESS.server}]:${APP_PORT}`, `[${IPV6_ADDRESS.server}]:15008`],
  } as const;
  for (const [index, [title, [target, goesTo]]] of Object.entries(TARGETS).entries()) {
    test(title, { timeout }, async () => {
      assert.equal(await call(`http://${target}/`), HTTP_BODY);
      const fields = await fieldsOfLast(lab.node("node-a"), index);
      assert.match(fields.get("src.addr") ?? "", /^"127\.0\.0\.1:\d+"$/);
      assert.equal(fields.get("dst.addr"), JSON.stringify(goesTo));
      assert.equal(fields.get("src.workload"), '"client"');
      assert.equal(fields.get("error"), undefined);
    });
  }

  test("test_stats_exist, test_tcp_connections_metrics, test_tcp_bytes_metrics", async () => {
    const metrics = await lab.node("node-a").metrics();
    const count = Object.keys(TARGETS).length;
    const of = (family: string): number => sampleSum(metrics, family, { reporter: "source" });
    assert.equal(of("istio_tcp_connections_opened_total"), count);
    assert.equal(of("istio_tcp_connections_closed_total"), count);
    assert.ok(of("istio_tcp_sent_bytes_total") > count * HTTP_BODY.length);
    assert.equal(of("istio_tcp_sockets_open"), 0);
    assert.match(
      metrics,
      /^# HELP istio_tcp_connections_opened The total number of TCP connections opened/m,
    );
    // Whatever is not Istio's standard may change, and says so.
    for (const [, name, help] of metrics.matchAll(/^# HELP (\S+) (.*)$/gm)) {
      const isStandard = name?.startsWith("istio_tcp_") && !name.includes("sockets");
      if (name?.startsWith("istio_") && !isStandard && name !== "istio_build") {
        assert.match(help ?? "", /\(unstable\)/, name);
      }
    }
  });

  test("test_hostname_request_local: a host name, told by the pod's own DNS", {
    timeout,
  }, async () => {
    const byName = ["--socks5-hostname", "127.0.0.1:15080"];
    const url = "http://echo.default.svc.cluster.local/";
    assert.equal(await curl(lab.net, lab.host("client"), url, ...byName), HTTP_BODY);
  });

  test("an unreachable destination is told by the end of the connection", { timeout }, async () => {
    assert.match(await call(`http://${ADDRESS.server}:1/`), CUT);
  });

  test("what is no SOCKS5 gets one answer, and the next client is served", {
    timeout,
  }, async () => {
    for (const said of [
      "GET / HTTP/1.1\r\n\r\n",
      "\x05\x00",
      "\x05\x01\x00\x05\x03\x00\x01",
      "\x04\x01",
    ]) {
      const socket = await connectFrom(lab.host("client"), "127.0.0.1", 15080);
      socket.write(Buffer.from(said, "latin1"));
      assert.match(await readingEnd(socket), /^(EOF|ECONNRESET)$/);
      socket.destroy();
    }
    const gone = await connectFrom(lab.host("client"), "127.0.0.1", 15080);
    // It may be gone before anybody looks.
    gone.write(Buffer.from([5, 1]));
    gone.resetAndDestroy();
    assert.equal(await call(`http://${ADDRESS.server}:${APP_PORT}/`), HTTP_BODY);
    const mistakes = (): string[] =>
      lab.node("node-a").lines.filter((line) => line.includes("handshake error"));
    await waitUntil(() => mistakes().length >= 4, "a mistake is not logged");
  });

  test("malicious_calls_inpod: 15080 of the pod itself, of localhost, of ztunnel", {
    timeout,
  }, async () => {
    const client = lab.host("client");
    await assert.rejects(connectFrom(client, ADDRESS.client, 15080), { code: "ECONNREFUSED" });
    await assert.rejects(connectFrom(lab.node("node-a").host, "127.0.0.1", 15080), {
      code: "ECONNREFUSED",
    });
    // Not even through itself.
    assert.match(await call("http://127.0.0.1:15080/"), CUT);
    await waitUntil(
      () => lab.node("node-a").lines.some((line) => line.includes("recursive call to ourselves")),
      "nobody said why",
    );
  });
});
