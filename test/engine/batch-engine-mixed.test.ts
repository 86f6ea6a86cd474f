/** The batch engine at one end of a tunnel, Node's HTTP/2 at the other. */
import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import { BatchEngine } from "../../src/engine/batch-engine.ts";
import type { End, Engine } from "../../src/engine/engine.ts";
import { native } from "../../src/net/native.ts";
import { createReactor } from "../../src/net/reactor.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { byteStreamSuite } from "../conformance/byte-stream.ts";
import { HALF_CLOSED } from "../conformance/engine-lab.ts";
import { LeakCheck } from "../support/leak-check.ts";
import { NodeEngine } from "../support/node-engine/node-engine.ts";

function batchEngine(): Engine {
  return new BatchEngine(
    {
      native,
      clock: systemClock,
      makeReactor: createReactor,
      unexpected: (error) => assert.fail(String(error)),
    },
    HALF_CLOSED,
  );
}

/**
 * One engine in the eyes of the suite: the first listener, whose connections become tunnels, and
 * all that is connected to belong to `server`; the other listeners and dialled tunnels to `client`.
 */
function mixed(client: Engine, server: Engine): Engine {
  const owners = new WeakMap<End, Engine>();
  const owned = <T extends End>(end: T, owner: Engine): T => {
    owners.set(end, owner);
    return end;
  };
  let hasServer = false;
  return {
    listen(options) {
      const owner = hasServer ? client : server;
      hasServer = true;
      const listener = owner.listen(options);
      return {
        address: listener.address,
        transparent: listener.transparent,
        start: (accepted, failed) => listener.start((end) => accepted(owned(end, owner)), failed),
        close: () => listener.close(),
      };
    },
    nestTunnel: (outer, options, released) => client.nestTunnel(outer, options, released),
    connect: async (options) => owned(await server.connect(options), server),
    async dialTunnel(options) {
      const tunnel = await client.dialTunnel(options);
      return {
        get streamsMax() {
          return tunnel.streamsMax;
        },
        get usable() {
          return tunnel.usable;
        },
        async open(authority, headers) {
          const answer = await tunnel.open(authority, headers);
          if (answer.end !== undefined) owned(answer.end, client);
          return answer;
        },
        close: () => tunnel.close(),
        destroy: () => tunnel.destroy(),
        onClosed: (callback) => tunnel.onClosed(callback),
      };
    },
    acceptTunnel: (end, options) =>
      server.acceptTunnel(end, {
        ...options,
        requested: (request) =>
          options.requested({
            method: request.method,
            authority: request.authority,
            headers: request.headers,
            accept: (headers) => owned(request.accept(headers), server),
            refuse: (status) => request.refuse(status),
            onAborted: (callback) => request.onAborted(callback),
          }),
      }),
    relay: (downstream, upstream, finished) =>
      (owners.get(downstream) ?? client).relay(downstream, upstream, finished),
    close() {
      client.close();
      server.close();
    },
  };
}

const nodeEngine = (): Engine => new NodeEngine({ native, clock: systemClock });

for (const [name, makeEngine] of [
  ["batch engine as client of Node's", () => mixed(batchEngine(), nodeEngine())],
  ["batch engine as server of Node's", () => mixed(nodeEngine(), batchEngine())],
] as const) {
  byteStreamSuite(name, { makeEngine, leakCheck: () => new LeakCheck(), delay });
}
