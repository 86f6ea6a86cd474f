/** A real Prometheus reads both daemons while connections live. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { WireCapture } from "../../src/embedded/wire-capture.ts";
import { Netns } from "../../src/net/netns.ts";
import { connectFrom, type LabServer, listenEcho } from "../support/lab-application.ts";
import type { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { ADDRESS, APP_PORT, pingPong, startTwoNodes } from "../support/two-nodes.ts";
import { waitUntil } from "../support/wait-until.ts";

const API_PORT = 9090;
/** A busy machine is slow. */
const ANSWER_MS_MAX = 40_000;
const NODES = ["node-a", "node-b"] as const;

interface Series {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

describe("a real Prometheus", {
  skip: requireNetns("iptables", "prometheus", "promtool", "curl"),
}, () => {
  let lab: MeshLab;
  let echo: LabServer;

  before(async () => {
    lab = await startTwoNodes();
    echo = listenEcho(lab.host("server"), APP_PORT);
    const file = join(lab.folder, "prometheus.yml");
    const targets = NODES.map((node) => `"${lab.host(node).ipv4}:15020"`);
    writeFileSync(
      file,
      `global: { scrape_interval: 1s }
scrape_configs:
  - { job_name: ztunnel, static_configs: [{ targets: [${targets}] }] }
`,
    );
    const prometheus = lab.net.spawn(
      lab.host("control"),
      "prometheus",
      `--config.file=${file}`,
      `--storage.tsdb.path=${join(lab.folder, "tsdb")}`,
      `--web.listen-address=127.0.0.1:${API_PORT}`,
      "--log.level=error",
    );
    prometheus.stdout?.resume();
    await waitUntil(async () => {
      const up = await query(lab, "up").catch(() => []);
      return up.filter(({ value }) => value === 1).length === NODES.length;
    }, "Prometheus never scraped both daemons");
  });

  after(async () => {
    echo?.close();
    await lab?.close();
  });

  test("finds the connection on both sides with its labels, and sees its bytes grow while it lives", {
    timeout: 150_000,
  }, async () => {
    const socket = await connectFrom(lab.host("client"), ADDRESS.server, APP_PORT);
    await pingPong(socket, 1000);
    const opened = await polled(
      () => query(lab, "istio_tcp_connections_opened_total"),
      (series) => series.length === 2,
    );
    for (const reporter of ["source", "destination"]) {
      const found = opened.find(({ labels }) => labels["reporter"] === reporter);
      assert.ok(found, `no series of the ${reporter}`);
      assert.equal(found.value, 1);
      assert.deepEqual(withoutScrape(found.labels), { ...LABELS, reporter });
    }

    const seen: number[] = [];
    for (let i = 0; i < 3; i++) {
      await pingPong(socket, 100_000);
      const soFar = 1000 + 100_000 * (i + 1);
      const series = await polled(
        () => query(lab, 'istio_tcp_received_bytes_total{reporter="destination"}'),
        ([first]) => first?.value === soFar,
      );
      seen.push(series[0]?.value ?? 0);
    }
    assert.deepEqual(seen, [101_000, 201_000, 301_000]);
    const closed = await query(lab, "sum(istio_tcp_connections_closed_total)");
    assert.equal(closed[0]?.value ?? 0, 0, "the connection still lives");
    socket.end();
    await polled(
      () => query(lab, "sum(istio_tcp_connections_closed_total)"),
      ([sum]) => sum?.value === 2,
    );
  });

  test("knows the build, the process and the state of both nodes", async () => {
    for (const [family, least] of [
      ["istio_build", 1],
      ["process_open_fds", 10],
      ["process_resident_memory_bytes", 10_000_000],
      ["workload_manager_active_proxy_count", 2],
    ] as const) {
      const series = await query(lab, family);
      assert.equal(series.length, NODES.length, `series of ${family}`);
      for (const { value } of series) assert.ok(value >= least, `${family} is ${value}`);
    }
  });

  test("its promtool finds fault with nothing but the original's names", async () => {
    const text = await lab.node("node-a").metrics();
    const { stderr } = spawnSync("promtool", ["check", "metrics"], {
      input: text,
      encoding: "utf8",
    });
    const faults = stderr.split("\n").filter((line) => line !== "");
    // It reads the older format, in which a counter's help belongs to the name with _total.
    const ours = faults.filter(
      (line) => !/^\w+_total no help text$|^workload_manager_\w+_count /.test(line),
    );
    assert.ok(faults.length > 0, "it says nothing at all");
    assert.deepEqual(ours, []);
  });

  test("is answered in gzip, as it asks for it, and curl in what that asks for", async (t) => {
    const wire = Netns.open(lab.host("control").path.replace(/control$/, "bridge"));
    t.after(() => wire.close());
    const capture = new WireCapture(wire, "istio_build");
    t.after(() => capture.close());
    const page = `${lab.host("node-a").ipv4}:15020`;
    await waitUntil(
      () => capture.flows.some(({ source, byteCount }) => source === page && byteCount > 1000),
      "no scrape was seen",
    );
    const get = (...words: string[]): string => {
      const asked = ["-sS", "--max-time", "20", "--dump-header", "-", ...words];
      return lab.net.exec(lab.host("control"), "curl", ...asked, `http://${page}/metrics`);
    };
    for (const [coding, ...words] of [
      ["gzip", "--header", "Accept-Encoding: gzip"],
      // Whatever this curl can read.
      ["\\w+"],
    ] as const) {
      const answer = get("--compressed", ...words);
      assert.match(answer, new RegExp(`^content-encoding: ${coding}\r$`, "im"));
      assert.match(answer, /^istio_build\{/m);
    }
    assert.equal(capture.markerCount, 0, "nothing of it was readable");
    assert.doesNotMatch(get(), /^content-encoding/im);
    await waitUntil(() => capture.markerCount > 0, "the capture would not have seen it");
  });
});

const LABELS = {
  __name__: "istio_tcp_connections_opened_total",
  source_workload: "client",
  source_workload_namespace: "default",
  source_principal: "spiffe://cluster.local/ns/default/sa/client",
  source_app: "client",
  source_version: "v1",
  source_region: "unknown",
  source_zone: "unknown",
  source_cluster: "Kubernetes",
  source_canonical_service: "client",
  source_canonical_revision: "v1",
  destination_workload: "server",
  destination_workload_namespace: "default",
  destination_principal: "spiffe://cluster.local/ns/default/sa/server",
  destination_app: "server",
  destination_version: "v1",
  destination_region: "unknown",
  destination_zone: "unknown",
  destination_cluster: "Kubernetes",
  destination_canonical_service: "server",
  destination_canonical_revision: "v1",
  request_protocol: "tcp",
  response_flags: "-",
  connection_security_policy: "mutual_tls",
};

/** Of an instant query. */
async function query(lab: MeshLab, text: string): Promise<readonly Series[]> {
  const socket = await connectFrom(lab.host("control"), "127.0.0.1", API_PORT);
  const path = `/api/v1/query?query=${encodeURIComponent(text)}`;
  const body = await new Promise<string>((resolve, reject) => {
    const asked = request({ path, createConnection: () => socket }, (response) => {
      let all = "";
      response.on("data", (chunk: Buffer) => {
        all += chunk.toString();
      });
      response.on("end", () => {
        socket.destroy();
        resolve(all);
      });
    });
    asked.on("error", reject);
    asked.end();
  });
  const { data } = JSON.parse(body) as {
    data: { result: { metric: Record<string, string>; value: [number, string] }[] };
  };
  return data.result.map(({ metric, value }) => ({ labels: metric, value: Number(value[1]) }));
}

/** Asks again with each scrape until the answer suits. @throws with the last answer. */
async function polled(
  ask: () => Promise<readonly Series[]>,
  suits: (series: readonly Series[]) => boolean,
): Promise<readonly Series[]> {
  let last: readonly Series[] = [];
  for (const until = performance.now() + ANSWER_MS_MAX; performance.now() < until; ) {
    last = await ask();
    if (suits(last)) return last;
    await delay(200);
  }
  throw new Error(`Prometheus has ${JSON.stringify(last)}`);
}

/** What the scrape itself adds. */
function withoutScrape(labels: Series["labels"]): Series["labels"] {
  return Object.fromEntries(
    Object.entries(labels).filter(
      ([name]) => !["job", "instance"].includes(name) && !name.startsWith("destination_service"),
    ),
  );
}
