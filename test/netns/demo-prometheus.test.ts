/** A person follows what `demo --keep` prints and looks at both proxies with a real Prometheus. */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { DemoRun } from "../support/demo-run.ts";
import { requireNetns } from "../support/netns-lab.ts";

/** Until Prometheus has scraped both; a busy machine is slow. */
const ANSWER_MS_MAX = 60_000;

const skip = requireNetns("iptables", "unshare", "setpriv", "prometheus", "curl");

test("Prometheus, started as the demo says, finds what the demo did, and nothing is left", {
  skip,
  timeout: 170_000,
}, async (t) => {
  const run = new DemoRun(t, ["--keep"]);
  const command = (await run.line(" prometheus ")).split(" ");
  const enter = command.slice(0, command.indexOf("prometheus"));
  const [program = "", ...args] = [...command, "--log.level=error"];
  const prometheus = spawn(program, args, { stdio: ["ignore", "ignore", "inherit"] });
  t.after(() => prometheus.kill("SIGKILL"));

  const ask = (query: string): Promise<readonly string[]> => answerOf(enter, query);
  const upOn = await polled(
    () => ask("up"),
    (series) => series.length === 2 && series.every((one) => one === "1"),
  );
  assert.equal(upOn.length, 2);
  // The allowed one, the denied one and the bulk transfer; each counted by both proxies.
  assert.deepEqual(
    (
      await ask(
        "sum by (reporter, source_workload, destination_workload) " +
          '(istio_tcp_connections_opened_total{connection_security_policy="mutual_tls"})',
      )
    ).toSorted(),
    [
      "destination client server 1",
      "destination client storage 1",
      "destination intruder server 1",
      "source client server 1",
      "source client storage 1",
      "source intruder server 1",
    ],
  );
  const denied = await ask(
    'sum by (reporter, source_workload) (istio_tcp_connections_failed_total{response_flags="DENY"})',
  );
  assert.ok(denied.includes("destination intruder 1"), `${denied}`);
  const bulk = "sum by (reporter) (istio_tcp_received_bytes_total{destination_workload='storage'})";
  assert.deepEqual((await ask(bulk)).toSorted(), ["destination 268435456", "source 268435456"]);

  prometheus.kill("SIGTERM");
  await once(prometheus, "exit");
  run.kill("SIGINT");
  assert.equal(await run.exitCode(), 0);
  assert.deepEqual(await run.leftovers(), []);
  assert.ok(!existsSync("/run/ztunnel-demo"));
});

const LABELS = ["reporter", "source_workload", "destination_workload"] as const;

/** Labels and value of each series. */
async function answerOf(enter: readonly string[], query: string): Promise<readonly string[]> {
  const url = `http://localhost:9090/api/v1/query?query=${encodeURIComponent(query)}`;
  const [program = "", ...args] = [...enter, "curl", "-s", url];
  const { stdout } = await promisify(execFile)(program, args);
  const { data } = JSON.parse(stdout) as {
    data: { result: { metric: Record<string, string>; value: [number, string] }[] };
  };
  return data.result.map(({ metric, value }) =>
    [...LABELS.flatMap((label) => metric[label] ?? []), value[1]].join(" "),
  );
}

/** Asks again until the answer suits; errors count as an answer that does not. */
async function polled(
  ask: () => Promise<readonly string[]>,
  suits: (series: readonly string[]) => boolean,
): Promise<readonly string[]> {
  let last: readonly string[] = [];
  for (const until = performance.now() + ANSWER_MS_MAX; performance.now() < until; ) {
    last = await ask().catch((error: Error) => [error.message]);
    if (suits(last)) return last;
    await delay(100);
  }
  throw new Error(`Prometheus has ${last.join(", ")}`);
}
