import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { listenReadiness } from "../../src/admin/readiness-server.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { silentLogger } from "../../src/telemetry/logger.ts";
import { ask } from "../support/raw-http.ts";

async function listen(t: TestContext, pending: () => readonly string[]): Promise<number> {
  const listener = await listenReadiness(
    { clock: systemClock, log: silentLogger, pending },
    {
      hosts: ["127.0.0.1"],
      port: 0,
      headerTimeoutMs: 500,
      headerBytesMax: 8192,
      connectionsMax: 8,
    },
  );
  t.after(() => listener.close());
  return listener.port;
}

const answers: readonly {
  readonly method: string;
  readonly target: string;
  readonly pending: readonly string[];
  readonly status: number;
  readonly body: string;
}[] = [
  { method: "GET", target: "/healthz/ready", pending: [], status: 200, body: "ready\n" },
  { method: "GET", target: "/healthz/ready?a=b", pending: [], status: 200, body: "ready\n" },
  {
    method: "GET",
    target: "/healthz/ready",
    pending: ["state manager", "workload proxy manager"],
    status: 500,
    body: "not ready, pending: state manager, workload proxy manager\n",
  },
  { method: "POST", target: "/healthz/ready", pending: [], status: 405, body: "" },
  { method: "HEAD", target: "/healthz/ready", pending: [], status: 405, body: "" },
  { method: "GET", target: "/healthz", pending: [], status: 404, body: "" },
];

for (const { method, target, pending, status, body } of answers) {
  test(`${method} ${target} with ${pending.length} tasks pending answers ${status}`, async (t) => {
    const answer = await ask(await listen(t, () => pending), method, target);
    assert.equal(answer.status, status);
    assert.equal(answer.body.toString(), body);
    assert.equal(answer.headers.get("content-type"), body === "" ? undefined : "text/plain");
  });
}
