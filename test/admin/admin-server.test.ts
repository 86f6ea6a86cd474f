import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { gunzipSync } from "node:zlib";
import { listenAdmin } from "../../src/admin/admin-server.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import type { CallNode } from "../../src/runtime/thread-profiler.ts";
import type { ThreadOutlier } from "../../src/state/endpoint-outliers.ts";
import { createRootLogger, type RootLogger } from "../../src/telemetry/root-logger.ts";
import { decodeMessage } from "../../src/wire/message-codec.ts";
import { Profile } from "../../src/wire/proto/perftools-profiles.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { ask } from "../support/raw-http.ts";

const HELP = `
usage: POST /logging\t\t\t\t\t\t(To list current level)
usage: POST /logging?level=<level>\t\t\t\t(To change global levels)
usage: POST /logging?level={mod1}:{level1},{mod2}:{level2}\t(To change specific mods' logging level)

hint: loglevel:\terror|warn|info|debug|trace|off
hint: mod_name:\tthe module name, i.e. ztunnel::proxy
`;

/** `run` calls `work`; values in the unit of whoever asks. */
const TREE: readonly CallNode[] = [
  { caller: -1, functionName: "(root)", url: "", line: 0, value: 0 },
  { caller: 0, functionName: "run", url: "file:///z/run.ts", line: 7, value: 1000 },
  { caller: 1, functionName: "work", url: "file:///z/work.ts", line: 3, value: 3000 },
];

const OUTLIER: ThreadOutlier = {
  service: "default/svc.default.svc.cluster.local",
  port: 80,
  uid: "uid-w0",
  workload: "default/w0",
  failures: 5,
  ejectionMs: 30_000,
  until: 1_800_000_030_000,
  thread: "data-0",
};

interface Lab {
  readonly profiled: readonly object[];
  readonly port: number;
  readonly logger: RootLogger;
  readonly lines: readonly string[];
  readonly quitCount: () => number;
}

async function listen(t: TestContext): Promise<Lab> {
  const lines: string[] = [];
  const logger = createRootLogger({
    format: "plain",
    filter: "info",
    sink: { write: (line) => void lines.push(line.slice(line.indexOf("\t") + 1)), flush: () => {} },
    clock: new FakeClock(),
  });
  let quitCount = 0;
  const profiled: object[] = [];
  const listener = await listenAdmin(
    {
      clock: systemClock,
      log: logger.root,
      logging: {
        filter: () => logger.filter,
        setFilter: (filter) => logger.setFilter(filter),
      },
      configDump: async function* () {
        yield '{"workloads": ';
        yield "[]}\n";
      },
      outliers: () => [OUTLIER],
      drain: async () => ({
        state: "LIVE",
        connections: { inbound: 0, outbound: 0 },
        workloads: [],
      }),
      why: async () => assert.fail("asked"),
      sockets: () => ({ pods: [] }),
      profiler: {
        threads: ["control", "data-0"],
        profile: async (thread, request) => {
          profiled.push({ thread, ...request });
          return TREE;
        },
      },
      quit: () => quitCount++,
    },
    {
      hosts: ["127.0.0.1"],
      port: 0,
      headerTimeoutMs: 30_000,
      headerBytesMax: 8192,
      connectionsMax: 8,
      defaultLogFilter: "info",
    },
  );
  t.after(() => listener.close());
  return { port: listener.port, logger, lines, quitCount: () => quitCount, profiled };
}

test("the index lists the pages that exist", async (t) => {
  const { port } = await listen(t);
  const answer = await ask(port, "GET", "/");
  assert.equal(answer.headers.get("content-type"), "text/html; charset=utf-8");
  const links = [...answer.body.toString().matchAll(/href="([^"]+)"/g)].map(([, path]) => path);
  assert.deepEqual(links, [
    "config_dump",
    "debug/sockets",
    "debug/why",
    "debug/outliers",
    "debug/pprof/profile",
    "debug/pprof/heap",
    "debug/pprof/heap/profiling",
    "drain",
    "logging",
    "quitquitquit",
  ]);
  for (const path of links) assert.notEqual((await ask(port, "GET", `/${path}`)).status, 404);
});

test("/debug/outliers lists who is left out, with the time in words", async (t) => {
  const { port } = await listen(t);
  const answer = await ask(port, "GET", "/debug/outliers");
  assert.deepEqual(JSON.parse(answer.body.toString()), [
    { ...OUTLIER, until: "2027-01-15T08:00:30.000000Z" },
  ]);
});

test("an unknown path is not found", async (t) => {
  const { port } = await listen(t);
  assert.equal((await ask(port, "GET", "/nowhere")).status, 404);
});

test("/quitquitquit answers, then asks to quit, and only for POST", async (t) => {
  const { port, quitCount } = await listen(t);
  assert.equal((await ask(port, "GET", "/quitquitquit")).status, 405);
  assert.equal(quitCount(), 0);
  const answer = await ask(port, "POST", "/quitquitquit");
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get("content-type"), "text/plain");
  assert.equal(answer.body.toString(), "shutdown now\n");
  assert.equal(quitCount(), 1);
});

/** In this order on one server, each on top of those before. */
const changes: readonly {
  readonly method?: string;
  readonly query: string;
  readonly status: number;
  readonly body: string;
}[] = [
  { query: "", status: 200, body: "current log level is info\n" },
  { method: "GET", query: "", status: 405, body: `Invalid HTTP method\n ${HELP}` },
  { query: "?level=debug", status: 200, body: "current log level is debug\n" },
  { query: "?level=access=debug", status: 200, body: "current log level is access=debug,debug\n" },
  {
    query: "?level=ztunnel::dns=trace,access=debug",
    status: 200,
    body: "current log level is ztunnel::dns=trace,access=debug,debug\n",
  },
  {
    query: "?level=",
    status: 200,
    body: "current log level is ztunnel::dns=trace,access=debug,debug\n",
  },
  {
    query: "?other=warn",
    status: 200,
    body: "current log level is ztunnel::dns=trace,access=debug,debug\n",
  },
  {
    query: "?level=off",
    status: 200,
    body: "current log level is ztunnel::dns=trace,access=debug,off\n",
  },
  { query: "?level=loud", status: 400, body: `Invalid level provided: loud\n${HELP}` },
  { query: "?level=INFO", status: 400, body: `Invalid level provided: INFO\n${HELP}` },
  { query: "?level=access", status: 400, body: `Invalid level provided: access\n${HELP}` },
  { query: "?level=info,a=b=c", status: 400, body: `Invalid level provided: info,a=b=c\n${HELP}` },
  { query: "?reset", status: 200, body: "current log level is info\n" },
  {
    query: "?level=ztunnel::proxy:warn,access:debug",
    status: 200,
    body: "current log level is ztunnel::proxy=warn,access=debug,info\n",
  },
  { query: "?level=info&reset&level=warn", status: 200, body: "current log level is warn\n" },
];

test("/logging shows and changes the levels as the original does", async (t) => {
  const { port, logger } = await listen(t);
  for (const { method = "POST", query, status, body } of changes) {
    const answer = await ask(port, method, `/logging${query}`);
    assert.equal(answer.status, status, query);
    assert.equal(answer.headers.get("content-type"), "text/plain", query);
    assert.equal(answer.body.toString(), body, query);
  }
  assert.equal(logger.filter.format(), "warn");
});

test("a change of the levels is logged", async (t) => {
  const { port, lines } = await listen(t);
  await ask(port, "POST", "/logging?level=access=off");
  assert.equal(lines.at(-1), "info\ttelemetry\tnew log filter is access=off,info\t\n");
});

test("/config_dump is sent piece by piece, as JSON, whatever the method", async (t) => {
  const { port } = await listen(t);
  for (const method of ["GET", "POST"]) {
    const answer = await ask(port, method, "/config_dump");
    assert.equal(answer.status, 200);
    assert.equal(answer.headers.get("content-type"), "application/json");
    assert.deepEqual(JSON.parse(answer.body.toString()), { workloads: [] });
  }
});

const refusals: readonly (readonly [query: string, body: string])[] = [
  ["seconds=0", "invalid seconds value; expected 1-300\n"],
  ["seconds=301", "invalid seconds value; expected 1-300\n"],
  ["seconds=1.5", "invalid seconds value; expected 1-300\n"],
  ["seconds=", "invalid seconds value; expected 1-300\n"],
  ["frequency=0", "invalid frequency value; expected 1-1000\n"],
  ["frequency=1001", "invalid frequency value; expected 1-1000\n"],
  ["frequency=x", "invalid frequency value; expected 1-1000\n"],
  ["thread=data-1", "invalid thread value; expected control, data-0\n"],
];

for (const [query, body] of refusals) {
  test(`/debug/pprof/profile refuses ${query}`, async (t) => {
    const { port, profiled } = await listen(t);
    const answer = await ask(port, "GET", `/debug/pprof/profile?${query}`);
    assert.equal(answer.status, 400);
    assert.equal(answer.body.toString(), body);
    assert.deepEqual(profiled, []);
  });
}

test("/debug/pprof/profile asks every thread, ten seconds a hundred times each", async (t) => {
  const { port, profiled } = await listen(t);
  const answer = await ask(port, "GET", "/debug/pprof/profile");
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get("content-type"), "application/octet-stream");
  const asked = { kind: "cpu", durationMs: 10_000, frequencyHz: 100 };
  assert.deepEqual(profiled, [
    { thread: "control", ...asked },
    { thread: "data-0", ...asked },
  ]);
  assert.deepEqual(stacksOf(answer.body), [
    ["run", 1000, "control"],
    ["work;run", 3000, "control"],
    ["run", 1000, "data-0"],
    ["work;run", 3000, "data-0"],
  ]);
});

test("/debug/pprof/profile asks one thread for what is wanted of it", async (t) => {
  const { port, profiled } = await listen(t);
  await ask(port, "GET", "/debug/pprof/profile?thread=data-0&seconds=300&frequency=1000");
  assert.deepEqual(profiled, [
    { thread: "data-0", kind: "cpu", durationMs: 300_000, frequencyHz: 1000 },
  ]);
});

test("the heap is profiled only while it is sampled", async (t) => {
  const { port, profiled } = await listen(t);
  const get = async (path: string) => {
    const { status, body } = await ask(port, "GET", `/debug/pprof/heap${path}`);
    return { status, body };
  };
  const inactive = await get("");
  assert.equal(inactive.status, 500);
  assert.equal(
    inactive.body.toString(),
    "heap profiling not active; activate with /debug/pprof/heap/profiling?activate=true",
  );
  assert.equal((await get("/profiling")).body.toString(), "heap profiling active: false\n");
  assert.equal((await get("/profiling?activate=yes")).status, 400);
  assert.equal(
    (await get("/profiling?activate=true")).body.toString(),
    "heap profiling active: true\n",
  );
  assert.deepEqual(stacksOf((await get("?thread=control")).body), [
    ["run", 1000, "control"],
    ["work;run", 3000, "control"],
  ]);
  assert.equal(
    (await get("/profiling?activate=false")).body.toString(),
    "heap profiling active: false\n",
  );
  assert.equal((await get("")).status, 500);
  assert.deepEqual(profiled, [
    { thread: "control", kind: "heap-sampling", active: true },
    { thread: "data-0", kind: "heap-sampling", active: true },
    { thread: "control", kind: "heap" },
    { thread: "control", kind: "heap-sampling", active: false },
    { thread: "data-0", kind: "heap-sampling", active: false },
  ]);
});

/** Leaf first, with its value and the thread. */
function stacksOf(gzipped: Buffer): readonly (readonly [string, number | undefined, string])[] {
  const profile = decodeMessage("profile", Profile, gunzipSync(gzipped));
  const text = (index: number): string => profile.stringTable[index] as string;
  return profile.sample.map(({ locationId, value, label }) => {
    const names = locationId.map((id) => {
      const location = profile.location.find((one) => one.id === id);
      const line = location?.line[0];
      const found = profile.function.find((one) => one.id === line?.functionId);
      return text(found?.name ?? 0);
    });
    return [names.join(";"), value[0], text(label[0]?.str ?? 0)];
  });
}
