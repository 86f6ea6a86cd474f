import assert from "node:assert/strict";
import { createSecureServer, type ServerHttp2Stream } from "node:http2";
import { type AddressInfo, connect } from "node:net";
import { it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { BatchEngine } from "../../src/engine/batch-engine.ts";
import { native } from "../../src/net/native.ts";
import { createReactor } from "../../src/net/reactor.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { Deferred, HALF_CLOSED, TunnelLab } from "../conformance/engine-lab.ts";
import { NestedLab, nestedTunnelSuite } from "../conformance/nested-tunnel.ts";
import { LOOPBACK, RawServer } from "../conformance/raw-peer.ts";
import { tunnelSuite } from "../conformance/tunnel.ts";
import type { TunnelSuiteOptions } from "../conformance/tunnel-exchange.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { LeakCheck } from "../support/leak-check.ts";

const options: TunnelSuiteOptions = {
  makeEngine: (clock = systemClock) =>
    new BatchEngine(
      {
        native,
        clock,
        makeReactor: createReactor,
        unexpected: (error) => assert.fail(String(error)),
      },
      HALF_CLOSED,
    ),
  leakCheck: () => new LeakCheck(),
  delay,
};

tunnelSuite("batch engine", options);
nestedTunnelSuite("batch engine", options);

/** More than the windows of the gateway, less than those of the tunnel inside. */
const SLOW_BYTES = 300_000;

it("batch engine: what waits for a slow gateway when the tunnel inside ends still arrives", async () => {
  const leaks = new LeakCheck();
  const clock = new FakeClock();
  const engine = options.makeEngine(clock);
  const lab = await TunnelLab.open(engine);
  const application = await RawServer.listen();
  const gateway = createSecureServer(await lab.serverOptions("gateway"));
  const carriers: ServerHttp2Stream[] = [];
  gateway.on("stream", (stream: ServerHttp2Stream) => {
    carriers.push(stream);
    stream.on("error", () => {});
    stream.respond({ ":status": 200 });
    const socket = connect(lab.listener.address.port, LOOPBACK);
    socket.on("error", () => {});
    stream.pipe(socket).pipe(stream);
  });
  const listening = new Deferred<void>();
  gateway.listen(0, LOOPBACK, () => listening.resolve());
  await listening.promise;
  try {
    const nested = new NestedLab(lab, application);
    const { port } = gateway.address() as AddressInfo;
    const outer = await lab.dial({ address: { ip: LOOPBACK, port } });
    const { inner, released } = await nested.open(outer);
    const tunnel = await inner;
    const { client, server, outcome } = await nested.attach(tunnel);
    server.end();
    assert.equal(await client.seenEnd, "fin");
    const [carrier] = carriers;
    assert(carrier !== undefined);
    carrier.pause();
    const said = await client.sendPattern(SLOW_BYTES, 1);
    client.end();
    const { sent, error } = await outcome;
    assert.deepEqual([sent, error], ["fin", undefined]);
    tunnel.close();
    // Longer than a tunnel waits for its peer that has had nothing to say.
    await clock.advance(5000);
    carrier.resume();
    assert.equal(await server.seenEnd, "fin");
    assert.equal(server.digest(), said);
    await released;
    outer.close();
  } finally {
    lab.listener.close();
    application.close();
    engine.close();
    gateway.close();
  }
  await leaks.assertNone();
});
