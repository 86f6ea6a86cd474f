import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { SocketEnd } from "../../src/engine/engine.ts";
import type { EngineError } from "../../src/engine/engine-error.ts";
import { type Native, native } from "../../src/net/native.ts";
import { connectOptions, Deferred, LISTEN, TunnelLab } from "../conformance/engine-lab.ts";
import { expectOriginalDestination } from "../conformance/original-destination.ts";
import { RawServer, rawConnect } from "../conformance/raw-peer.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { LeakCheck } from "../support/leak-check.ts";
import { address } from "../support/mesh-fixture.ts";
import { NodeEngine } from "../support/node-engine/node-engine.ts";

describe("NodeEngine", () => {
  it("leaves no timer and no descriptor behind when it is closed", async () => {
    const leaks = new LeakCheck();
    const clock = new FakeClock();
    const engine = new NodeEngine({ native, clock });
    const lab = await TunnelLab.open(engine);
    const application = await RawServer.listen();
    const next = lab.next();
    await lab.dial();
    const end = await engine.connect(connectOptions(application.address));
    const other = await engine.connect(connectOptions(application.address));
    const relayed = new Deferred<unknown>();
    engine.relay(end, other, relayed.resolve);
    assert(clock.pendingCount > 0);
    engine.close();
    engine.close();
    await Promise.all([relayed.promise, (await next).closed.promise]);
    application.close();
    await leaks.assertNone();
    assert.equal(clock.pendingCount, 0);
  });

  it("fails a dial under way when it is closed", async () => {
    const leaks = new LeakCheck();
    const clock = new FakeClock();
    const engine = new NodeEngine({ native, clock });
    const lab = await TunnelLab.open(engine);
    const silent = await RawServer.listen();
    const accepting = silent.accept();
    const dialling = assert.rejects(lab.dial({ address: silent.address }), { name: "EngineError" });
    const peer = await accepting;
    await peer.received(1);
    engine.close();
    await dialling;
    silent.close();
    await leaks.assertNone();
    assert.equal(clock.pendingCount, 0);
  });

  it("waits a while when descriptors run out, and then accepts what has queued up", async () => {
    const clock = new FakeClock();
    let failures = 1;
    const exhausted: Native = {
      ...native,
      accept(listenFd) {
        if (failures-- > 0) {
          throw Object.assign(new Error("accept4"), { code: "EMFILE", syscall: "accept4" });
        }
        return native.accept(listenFd);
      },
    };
    const engine = new NodeEngine({ native: exhausted, clock });
    const listener = engine.listen(LISTEN);
    const accepted = new Deferred<SocketEnd>();
    const failed = new Deferred<EngineError>();
    listener.start(accepted.resolve, failed.resolve);
    const peer = await rawConnect(listener.address);
    const error = await failed.promise;
    assert.deepEqual(
      [error.code, error.errno, error.message],
      ["system", "EMFILE", "Too many open files (os error 24)"],
    );
    assert.equal(clock.pendingCount, 1);
    await clock.advance(1000);
    (await accepted.promise).close();
    assert.equal(await peer.seenEnd, "fin");
    peer.close();
    engine.close();
  });

  it("gives the destination before redirection when asked to", async () => {
    const asked: number[] = [];
    const redirected: Native = {
      ...native,
      socketOption(fd) {
        asked.push(fd);
        return Uint8Array.of(2, 0, 0, 80, 10, 78, 0, 1);
      },
    };
    const engine = new NodeEngine({ native: redirected, clock: new FakeClock() });
    await expectOriginalDestination(engine, address("10.78.0.1:80"));
    assert.equal(asked.length, 1);
    engine.close();
  });
});
