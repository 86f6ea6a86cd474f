/** What an engine tells of redirected connections. */
import assert from "node:assert/strict";
import type { Engine, SocketEnd } from "../../src/engine/engine.ts";
import type { SocketAddress } from "../../src/mesh/socket-address.ts";
import { Deferred, LISTEN } from "./engine-lab.ts";
import { rawConnect } from "./raw-peer.ts";

/** @param original what the kernel is made to say of any connection; the engine looks where it is told to. */
export async function expectOriginalDestination(
  engine: Engine,
  original: SocketAddress,
): Promise<void> {
  for (const originalDestination of [true, false]) {
    const listener = engine.listen({ ...LISTEN, originalDestination });
    const accepted = new Deferred<SocketEnd>();
    listener.start(accepted.resolve, (error) => assert.fail(error));
    const peer = await rawConnect(listener.address);
    const end = await accepted.promise;
    assert.deepEqual(end.originalDestination, originalDestination ? original : listener.address);
    end.close();
    peer.close();
    listener.close();
  }
}
