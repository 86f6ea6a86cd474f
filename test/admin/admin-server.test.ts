import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { listenAdmin } from "../../src/admin/admin-server.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { createRootLogger, type RootLogger } from "../../src/telemetry/root-logger.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { ask } from "../support/raw-http.ts";

const HELP = `
usage: POST /logging\t\t\t\t\t\t(To list current level)
usage: POST /logging?level=<level>\t\t\t\t(To change global levels)
usage: POST /logging?level={mod1}:{level1},{mod2}:{level2}\t(To change specific mods' logging level)

hint: loglevel:\terror|warn|info|debug|trace|off
hint: mod_name:\tthe module name, i.e. ztunnel::proxy
`;

interface Lab {
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
  const listener = await listenAdmin(
    {
      clock: systemClock,
      log: logger.root,
      logging: {
        filter: () => logger.filter,
        setFilter: (filter) => logger.setFilter(filter),
      },
      quit: () => quitCount++,
    },
    {
      hosts: ["127.0.0.1", "::1"],
      port: 0,
      headerTimeoutMs: 500,
      headerBytesMax: 8192,
      connectionsMax: 8,
      defaultLogFilter: "info",
    },
  );
  t.after(() => listener.close());
  return { port: listener.port, logger, lines, quitCount: () => quitCount };
}

test("the index lists the pages that exist", async (t) => {
  const { port } = await listen(t);
  const answer = await ask(port, "GET", "/");
  assert.equal(answer.headers.get("content-type"), "text/html; charset=utf-8");
  const links = [...answer.body.toString().matchAll(/href="([^"]+)"/g)].map(([, path]) => path);
  assert.deepEqual(links, ["logging", "quitquitquit"]);
  for (const path of links) assert.notEqual((await ask(port, "GET", `/${path}`)).status, 404);
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
