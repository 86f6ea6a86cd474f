/** What goes through a tunnel in the suites of {@link file://./tunnel.ts}, and the lab that they get. */
import assert from "node:assert/strict";
import type {
  ClientTunnel,
  Relay,
  TunnelRequest,
  TunnelSettings,
} from "../../src/engine/engine.ts";
import type { EngineError } from "../../src/engine/engine-error.ts";
import type { Clock } from "../../src/runtime/clock.ts";
import type { LeakCheck } from "../support/leak-check.ts";
import {
  type ClosableEngine,
  connectOptions,
  Deferred,
  LISTEN,
  type TunnelLab,
} from "./engine-lab.ts";
import { type RawPeer, RawServer, rawConnect } from "./raw-peer.ts";

export interface TunnelSuiteOptions {
  /** @param clock default: the system's. */
  readonly makeEngine: (clock?: Clock) => ClosableEngine;
  readonly leakCheck: () => LeakCheck;
  readonly delay: (ms: number) => Promise<void>;
}

export type WithLab = (
  run: (lab: TunnelLab) => Promise<void>,
  more?: Parameters<typeof TunnelLab.open>[1],
  clock?: Clock,
) => Promise<void>;

/** Echoes until the peer has ended. */
export function echo(lab: TunnelLab, application: RawServer): (request: TunnelRequest) => void {
  return (request) => {
    void lab.engine.connect(connectOptions(application.address)).then((upstream) => {
      lab.engine.relay(request.accept([]), upstream, () => {});
    });
  };
}

/** 150 kB both ways on each of three streams. */
export async function exchange(lab: TunnelLab, client: Partial<TunnelSettings>): Promise<void> {
  const application = await RawServer.listen();
  lab.requested = echo(lab, application);
  const tunnel = await lab.dial({ settings: client });
  await Promise.all(
    [1, 2, 3].map(async (seed) => {
      const server = application.accept();
      const { peer, outcome } = await attach(lab, tunnel);
      const far = await server;
      const [up, down] = await Promise.all([
        peer.sendPattern(150_000, seed),
        far.sendPattern(150_000, -seed),
        peer.received(150_000),
        far.received(150_000),
      ]);
      peer.end();
      far.end();
      assert.equal((await outcome).error, undefined);
      await Promise.all([peer.closed, far.closed]);
      return [up, down, far.digest(), peer.digest()];
    }),
  ).then((all) => {
    const sorted = (pick: readonly number[]): unknown[] =>
      all.flatMap((digests) => pick.map((i) => digests[i])).sort();
    // Streams may reach the application in another order than they were opened in.
    assert.deepEqual(sorted([0]), sorted([2]));
    assert.deepEqual(sorted([1]), sorted([3]));
  });
  tunnel.destroy();
  application.close();
}

/** A stream of a tunnel and the TCP connection of the test that it is relayed to. */
interface AttachedStream {
  readonly peer: RawPeer;
  readonly outcome: Promise<{ readonly error: EngineError | undefined }>;
  readonly receivedBytes: () => number;
}

/** A stream of the tunnel as a TCP connection of the test. */
export async function attach(
  lab: TunnelLab,
  tunnel: ClientTunnel,
  how: "reading" | "stalled" = "reading",
): Promise<AttachedStream> {
  const answer = await tunnel.open("10.0.0.1:80", []);
  assert(answer.end !== undefined, `answered ${answer.status}`);
  const listener = lab.engine.listen(LISTEN);
  const outcome = new Deferred<{ readonly error: EngineError | undefined }>();
  const { end } = answer;
  let relay: Relay | undefined;
  listener.start(
    (downstream) => {
      listener.close();
      relay = lab.engine.relay(downstream, end, outcome.resolve);
    },
    (error) => assert.fail(error),
  );
  return {
    peer: await rawConnect(listener.address, how),
    outcome: outcome.promise,
    receivedBytes: () => relay?.bytesReceived ?? 0,
  };
}
