import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import type { ReadinessStanding } from "../../src/admin/readiness-report.ts";
import { listenReadiness } from "../../src/admin/readiness-server.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { ask } from "../support/raw-http.ts";
import { silentLogger } from "../support/silent-logger.ts";

const QUIET: ReadinessStanding = {
  pending: [],
  controlPlane: undefined,
  nodeAgent: undefined,
  workloads: [],
  mesh: { workloads: 58, services: 13, policies: 9 },
};

async function listen(t: TestContext, standing: ReadinessStanding): Promise<number> {
  const listener = await listenReadiness(
    { clock: systemClock, log: silentLogger, standing: () => standing },
    {
      hosts: ["127.0.0.1"],
      port: 0,
      headerTimeoutMs: 30_000,
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
    const tasks = pending.map((task) => ({ task, forMs: 1 }));
    const answer = await ask(await listen(t, { ...QUIET, pending: tasks }), method, target);
    assert.equal(answer.status, status);
    assert.equal(answer.body.toString(), body);
    assert.equal(answer.headers.get("content-type"), body === "" ? undefined : "text/plain");
  });
}

const POD = { uid: "4711", name: "cart-1", namespace: "shop", serviceAccount: "cart" };
const CONTROL_PLANE = {
  address: "https://istiod:15012",
  connected: true,
  awayMs: undefined,
  lastError: undefined,
  refusal: undefined,
};
const AGENT = { address: "/run/agent.sock", connected: true, lastError: undefined };

const reports: readonly {
  readonly title: string;
  readonly standing: Partial<ReadinessStanding>;
  readonly status: number;
  readonly lines: readonly string[];
}[] = [
  {
    title: "a control plane that refuses",
    standing: {
      pending: [
        { task: "state manager", forMs: 12_345 },
        { task: "workload proxy manager", forMs: 12_345 },
      ],
      controlPlane: {
        ...CONTROL_PLANE,
        connected: false,
        awayMs: 12_300,
        lastError: "connect ECONNREFUSED 10.0.0.1:15012",
        ageMs: undefined,
      },
    },
    status: 500,
    lines: [
      "not ready, pending: state manager, workload proxy manager",
      "state manager: pending for 12.3s: https://istiod:15012: not connected for 12.3s: connect ECONNREFUSED 10.0.0.1:15012",
      "workload proxy manager: pending for 12.3s: the mesh must be known first",
      "control plane https://istiod:15012: not connected for 12.3s: connect ECONNREFUSED 10.0.0.1:15012",
      "node agent: not called yet",
      "pods: 0 up, 0 pending",
      "mesh: 58 workloads, 13 services, 9 policies",
    ],
  },
  {
    title: "a control plane that has sent a part",
    standing: {
      pending: [{ task: "state manager", forMs: 100 }],
      controlPlane: { ...CONTROL_PLANE, ageMs: 60 },
    },
    status: 500,
    lines: [
      "not ready, pending: state manager",
      "state manager: pending for 0.1s: https://istiod:15012 has not sent everything yet",
      "control plane https://istiod:15012: connected",
      "node agent: not called yet",
      "pods: 0 up, 0 pending",
      "mesh: 58 workloads, 13 services, 9 policies, last answer 0.1s ago",
    ],
  },
  {
    title: "a control plane of which something was refused",
    standing: {
      pending: [{ task: "state manager", forMs: 100 }],
      controlPlane: { ...CONTROL_PLANE, ageMs: 60, refusal: `odd: ${"very ".repeat(100)}odd` },
    },
    status: 500,
    lines: [
      "not ready, pending: state manager",
      `state manager: pending for 0.1s: what https://istiod:15012 sent was refused: odd: ${"very ".repeat(99)}…`,
      "control plane https://istiod:15012: connected",
      "node agent: not called yet",
      "pods: 0 up, 0 pending",
      "mesh: 58 workloads, 13 services, 9 policies, last answer 0.1s ago",
    ],
  },
  {
    title: "a pod that can't be served",
    standing: {
      pending: [{ task: "workload proxy manager", forMs: 5000 }],
      nodeAgent: AGENT,
      workloads: [
        { workload: { ...POD, uid: "1" }, state: "Up" },
        { workload: { ...POD, uid: "2" }, state: "Draining" },
        {
          workload: POD,
          state: "Pending",
          failure: "failed to bind to address [::]:15008: address already in use",
        },
      ],
    },
    status: 500,
    lines: [
      "not ready, pending: workload proxy manager",
      "workload proxy manager: pending for 5.0s: 1 pod could not be started",
      "pod shop/cart-1 (4711): not started: failed to bind to address [::]:15008: address already in use",
      "control plane: none, the mesh is read from a file",
      "node agent /run/agent.sock: connected",
      "pods: 1 up, 1 pending, 1 draining",
      "mesh: 58 workloads, 13 services, 9 policies",
    ],
  },
  {
    title: "an agent that has not finished",
    standing: {
      pending: [{ task: "workload proxy manager", forMs: 5000 }],
      nodeAgent: AGENT,
    },
    status: 500,
    lines: [
      "not ready, pending: workload proxy manager",
      "workload proxy manager: pending for 5.0s: /run/agent.sock has not named all pods yet",
      "control plane: none, the mesh is read from a file",
      "node agent /run/agent.sock: connected",
      "pods: 0 up, 0 pending",
      "mesh: 58 workloads, 13 services, 9 policies",
    ],
  },
  {
    title: "ready, with a control plane that was lost",
    standing: {
      controlPlane: {
        ...CONTROL_PLANE,
        connected: false,
        awayMs: 5000,
        lastError: "the control plane ended the stream",
        ageMs: 3_600_000,
      },
      nodeAgent: AGENT,
    },
    status: 200,
    lines: [
      "ready",
      "control plane https://istiod:15012: not connected for 5.0s: the control plane ended the stream",
      "node agent /run/agent.sock: connected",
      "pods: 0 up, 0 pending",
      "mesh: 58 workloads, 13 services, 9 policies, last answer 3600.0s ago",
    ],
  },
];

for (const { title, standing, status, lines } of reports) {
  test(`?verbose tells of ${title}`, async (t) => {
    const port = await listen(t, { ...QUIET, ...standing });
    const answer = await ask(port, "GET", "/healthz/ready?verbose");
    assert.equal(answer.status, status);
    assert.deepEqual(answer.body.toString().split("\n"), [...lines, ""]);
  });
}
