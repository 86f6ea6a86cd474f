/** What every engine must do with a tunnel inside of a stream of another one. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ClientTunnel, RelayOutcome, TunnelRequest } from "../../src/engine/engine.ts";
import { testIdentity } from "../support/test-ca.ts";
import { connectOptions, Deferred, LISTEN, SETTINGS, TunnelLab, tlsOptions } from "./engine-lab.ts";
import { type RawPeer, RawServer, rawConnect } from "./raw-peer.ts";
import type { TunnelSuiteOptions } from "./tunnel-exchange.ts";

const BULK_BYTES = 3_000_000;

/** The lab is the gateway, for CONNECTs to `gateway:1`, and the server behind it for all others. */
export class NestedLab {
  readonly lab: TunnelLab;
  readonly application: RawServer;

  constructor(lab: TunnelLab, application: RawServer) {
    this.lab = lab;
    this.application = application;
    lab.requested = (request) => void this.#serve(request);
  }

  async open(
    outer: ClientTunnel,
    verifyPeer?: () => string | undefined,
  ): Promise<{ readonly inner: Promise<ClientTunnel>; readonly released: Promise<void> }> {
    const { engine, ca } = this.lab;
    const { end } = await outer.open("gateway:1", []);
    assert(end !== undefined);
    const tls = tlsOptions(await ca.certificate(testIdentity("client")), verifyPeer);
    const released = new Deferred<void>();
    const inner = engine.nestTunnel(end, { tls, settings: SETTINGS }, released.resolve);
    return { inner, released: released.promise };
  }

  /** A connection of a client application through a stream of the tunnel. */
  async attach(tunnel: ClientTunnel): Promise<{
    readonly client: RawPeer;
    readonly server: RawPeer;
    readonly outcome: Promise<RelayOutcome>;
  }> {
    const { engine } = this.lab;
    const accepting = this.application.accept();
    const { end } = await tunnel.open("server:1", []);
    assert(end !== undefined);
    const listener = engine.listen(LISTEN);
    const outcome = new Deferred<RelayOutcome>();
    listener.start(
      (downstream) => {
        listener.close();
        engine.relay(downstream, end, outcome.resolve);
      },
      (error) => assert.fail(error),
    );
    const client = await rawConnect(listener.address);
    return { client, server: await accepting, outcome: outcome.promise };
  }

  async #serve(request: TunnelRequest): Promise<void> {
    const { engine, listener } = this.lab;
    const isGateway = request.authority === "gateway:1";
    const remote = isGateway ? listener.address : this.application.address;
    const upstream = await engine.connect(connectOptions(remote));
    engine.relay(request.accept([]), upstream, () => {});
  }
}

export function nestedTunnelSuite(name: string, options: TunnelSuiteOptions): void {
  const withLab = async (run: (lab: NestedLab, outer: ClientTunnel) => Promise<void>) => {
    const leaks = options.leakCheck();
    const engine = options.makeEngine();
    const lab = await TunnelLab.open(engine);
    const application = await RawServer.listen();
    try {
      await run(new NestedLab(lab, application), await lab.dial());
    } finally {
      lab.listener.close();
      application.close();
      engine.close();
    }
    await leaks.assertNone();
  };

  describe(`${name}: a tunnel inside of a tunnel`, () => {
    it("carries bytes both ways to their ends, and leaves the outer tunnel as it was", () =>
      withLab(async (lab, outer) => {
        const { inner, released } = await lab.open(outer);
        const tunnel = await inner;
        const { client, server, outcome } = await lab.attach(tunnel);
        const [up, down] = await Promise.all([
          client.sendPattern(BULK_BYTES, 1),
          server.sendPattern(BULK_BYTES, 2),
        ]);
        client.end();
        server.end();
        assert.deepEqual(await Promise.all([client.seenEnd, server.seenEnd]), ["fin", "fin"]);
        assert.deepEqual([server.digest(), client.digest()], [up, down]);
        const { sent, received, error } = await outcome;
        assert.deepEqual([sent, received, error], ["fin", "fin", undefined]);
        tunnel.close();
        await released;
        assert.equal(outer.usable, true);
        const second = await lab.open(outer);
        (await second.inner).destroy();
        await second.released;
      }));

    it("keeps what is still under way when it is closed behind the last byte", () =>
      withLab(async (lab, outer) => {
        const { inner, released } = await lab.open(outer);
        const tunnel = await inner;
        const { client, server, outcome } = await lab.attach(tunnel);
        server.end();
        const up = await client.sendPattern(BULK_BYTES, 3);
        client.end();
        await outcome;
        tunnel.close();
        assert.equal(await server.seenEnd, "fin");
        assert.equal(server.digest(), up);
        await released;
      }));

    it("refuses a peer of the wrong identity and gives the stream back", () =>
      withLab(async (lab, outer) => {
        const { inner, released } = await lab.open(outer, () => "not this one");
        await assert.rejects(inner, { code: "peer-identity", message: "not this one" });
        await released;
        assert.equal(outer.usable, true);
      }));

    it("fails a handshake that nobody answers", () =>
      withLab(async (lab, outer) => {
        lab.lab.requested = (request) => request.accept([]).close();
        const { inner, released } = await lab.open(outer);
        await assert.rejects(inner, { code: "handshake" });
        await released;
      }));

    it("ends its streams when the stream that carries it is reset", () =>
      withLab(async (lab, outer) => {
        const { inner, released } = await lab.open(outer);
        const tunnel = await inner;
        const { client, outcome } = await lab.attach(tunnel);
        const closed = new Deferred<void>();
        tunnel.onClosed(() => closed.resolve());
        outer.destroy();
        await Promise.all([client.seenEnd, outcome, closed.promise, released]);
        assert.equal(tunnel.usable, false);
      }));
  });
}
