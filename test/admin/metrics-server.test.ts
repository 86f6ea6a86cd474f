import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { brotliDecompressSync, gunzipSync, inflateSync, zstdDecompressSync } from "node:zlib";
import { listenMetrics } from "../../src/admin/metrics-server.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { ask } from "../support/raw-http.ts";
import { silentLogger } from "../support/silent-logger.ts";

const TEXT = "# HELP x é\n# TYPE x gauge\nx 1\n# EOF\n";
const PLAIN = "text/plain; charset=utf-8";
const OPEN = "application/openmetrics-text;charset=utf-8;version=1.0.0";

async function listen(t: TestContext, render = () => Promise.resolve(TEXT)): Promise<number> {
  const listener = await listenMetrics(
    { clock: systemClock, log: silentLogger, render },
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

for (const [method, target] of [
  ["GET", "/metrics"],
  ["GET", "/stats/prometheus"],
  ["POST", "/metrics"],
  ["GET", "/metrics?name=x"],
] as const) {
  test(`${method} ${target} answers the metrics`, async (t) => {
    const answer = await ask(await listen(t), method, target);
    assert.equal(answer.status, 200);
    assert.equal(answer.headers.get("content-type"), PLAIN);
    assert.equal(answer.headers.get("vary"), "accept-encoding");
    assert.equal(answer.body.toString(), TEXT);
  });
}

test("any other path is not found, without a body", async (t) => {
  const answer = await ask(await listen(t), "GET", "/");
  assert.equal(answer.status, 404);
  assert.equal(answer.headers.get("content-length"), "0");
});

const accepted: readonly (readonly [accept: string, contentType: string])[] = [
  ["application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2", OPEN],
  ["text/plain, Application/OpenMetrics-Text ; version=0.0.1", OPEN],
  ["*/*", PLAIN],
  ["text/plain;version=0.0.4", PLAIN],
  ["application/openmetrics-text2", PLAIN],
];

for (const [accept, contentType] of accepted) {
  test(`Accept: ${accept} is answered as ${contentType}`, async (t) => {
    const answer = await ask(await listen(t), "GET", "/metrics", { accept });
    assert.equal(answer.headers.get("content-type"), contentType);
  });
}

const identity = (bytes: Buffer): Buffer => bytes;
const codings: readonly {
  readonly accept: string;
  readonly coding: string | undefined;
  readonly decode: (bytes: Buffer) => Buffer;
}[] = [
  { accept: "gzip", coding: "gzip", decode: gunzipSync },
  { accept: "br", coding: "br", decode: brotliDecompressSync },
  { accept: "zstd", coding: "zstd", decode: zstdDecompressSync },
  { accept: "deflate", coding: "deflate", decode: inflateSync },
  { accept: "gzip, deflate, br, zstd", coding: "zstd", decode: zstdDecompressSync },
  { accept: "zstd;q=0.1, GZIP; q=0.9", coding: "gzip", decode: gunzipSync },
  { accept: "gzip;q=0", coding: undefined, decode: identity },
  { accept: "gzip;q=much", coding: undefined, decode: identity },
  { accept: "identity, snappy", coding: undefined, decode: identity },
];

for (const { accept, coding, decode } of codings) {
  test(`Accept-Encoding: ${accept} is answered with ${coding ?? "plain bytes"}`, async (t) => {
    const answer = await ask(await listen(t), "GET", "/metrics", { "accept-encoding": accept });
    assert.equal(answer.headers.get("content-encoding"), coding);
    assert.equal(decode(answer.body).toString(), TEXT);
  });
}

test("scrapes at the same time share one look at the counters", async (t) => {
  let renderCount = 0;
  const rendered = Promise.withResolvers<string>();
  const port = await listen(t, () => {
    renderCount++;
    return rendered.promise;
  });
  const answers = [ask(port, "GET", "/metrics"), ask(port, "GET", "/metrics")];
  // Questions that came later have been answered, so that these two have arrived.
  for (let i = 0; i < 3; i++) await ask(port, "GET", "/nowhere");
  rendered.resolve(TEXT);
  for (const answer of await Promise.all(answers)) assert.equal(answer.body.toString(), TEXT);
  assert.equal(renderCount, 1);
  await ask(port, "GET", "/metrics");
  assert.equal(renderCount, 2);
});
