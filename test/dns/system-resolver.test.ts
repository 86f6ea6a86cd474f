/** Against a real DNS server of the test. */
import assert from "node:assert/strict";
import { Resolver } from "node:dns/promises";
import { after, afterEach, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { type AskHost, systemResolver } from "../../src/dns/system-resolver.ts";
import { DnsServer } from "../support/dns-server.ts";

const NEVER = new AbortController().signal;

describe("the resolver of the system", () => {
  const server = new DnsServer();
  let port = 0;
  let hosts = "";
  let resolv = "";

  /** @param timeoutMs long, unless nobody is going to answer. */
  const asker = (ipv6 = true, timeoutMs = 30_000): AskHost =>
    systemResolver(
      { ipv6 },
      {
        open: () => {
          const resolver = new Resolver({ timeout: timeoutMs, tries: 1 });
          resolver.setServers([`127.0.0.1:${port}`]);
          return resolver;
        },
        read: async (path) => (path === "/etc/hosts" ? hosts : resolv),
      },
    );

  before(async () => {
    port = await server.listen();
    server.names.set("db.example", { ips: ["10.0.0.7", "fd00::7"], ttlSeconds: 30 });
    server.names.set("old.example", { ips: ["10.0.0.8"], ttlSeconds: 5 });
    server.names.set("bare.example", { ips: [] });
    server.names.set("lame.example", { ips: ["10.0.0.9", "fd00::9"], failing: 6 });
    server.names.set("mute.example", { ips: ["10.0.0.9"], silent: 4 });
  });

  after(() => server.close());

  afterEach(() => {
    server.asked.length = 0;
    hosts = resolv = "";
  });

  test("asks for both families at once", async () => {
    const { ips, ttlMs } = await asker()("db.example", NEVER);
    assert.deepEqual([[...ips].sort(), ttlMs], [["10.0.0.7", "fd00::7"], 30_000]);
    assert.deepEqual(server.asked.sort(), ["A db.example", "AAAA db.example"]);
  });

  test("asks for IPv4 alone where IPv6 is disabled", async () => {
    assert.deepEqual((await asker(false)("db.example", NEVER)).ips, ["10.0.0.7"]);
    assert.deepEqual(server.asked, ["A db.example"]);
  });

  test("a family without addresses does not matter, one that fails is asked for again soon", async () => {
    assert.deepEqual(await asker()("old.example", NEVER), { ips: ["10.0.0.8"], ttlMs: 5000 });
    assert.deepEqual(await asker()("lame.example", NEVER), { ips: ["10.0.0.9"], ttlMs: 0 });
  });

  test("the search list completes a name", async () => {
    resolv = "search sub.example example\noptions ndots:2";
    assert.deepEqual((await asker(false)("db", NEVER)).ips, ["10.0.0.7"]);
    assert.deepEqual(server.asked, ["A db.sub.example", "A db.example"]);
  });

  test("the hosts file comes before DNS, in the families asked for", async () => {
    hosts = "10.9.9.9 db.example\nfd99::9 db.example\nfd99::9 old.example";
    assert.deepEqual((await asker()("db.example", NEVER)).ips, ["10.9.9.9", "fd99::9"]);
    assert.deepEqual(server.asked, []);
    assert.deepEqual((await asker(false)("db.example", NEVER)).ips, ["10.9.9.9"]);
    assert.deepEqual((await asker(false)("old.example", NEVER)).ips, ["10.0.0.8"]);
  });

  test("what does not exist, has no address or does not answer is an error", async () => {
    await assert.rejects(asker()("gone.example", NEVER), { code: "ENOTFOUND" });
    await assert.rejects(asker()("bare.example", NEVER), { code: "ENODATA" });
    await assert.rejects(asker(false, 200)("mute.example", NEVER), { code: "ETIMEOUT" });
  });

  test("gives up when it is told to", async () => {
    const end = new AbortController();
    resolv = "search sub.example";
    const asked = asker(false)("mute.example", end.signal);
    const rejected = assert.rejects(asked, { message: "enough" });
    while (server.asked.length === 0) await delay(5);
    end.abort(new Error("enough"));
    await rejected;
    assert.deepEqual(server.asked, ["A mute.example"]);
  });
});
