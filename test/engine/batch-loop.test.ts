import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { BatchLoop, type Watcher } from "../../src/engine/batch-loop.ts";
import { EVENT, OPERATION, type ReactorOptions } from "../../src/net/reactor.ts";
import { FakeClock, settle } from "../support/fake-clock.ts";
import { FAKE_REACTOR_OPTIONS, FakeReactor } from "../support/fake-reactor.ts";

/** A loop over a reactor that does nothing by itself. */
function makeLab(sizes: Partial<ReactorOptions> = {}) {
  let reactor: FakeReactor | undefined;
  const unexpected: unknown[] = [];
  const clock = new FakeClock();
  const options = { ...FAKE_REACTOR_OPTIONS, ...sizes };
  const loop = new BatchLoop(
    {
      clock,
      unexpected: (error) => unexpected.push(error),
      makeReactor: (given, turn) => {
        reactor = new FakeReactor(given, turn);
        return reactor;
      },
    },
    options,
  );
  assert(reactor !== undefined);
  return { loop, reactor, clock, unexpected, options };
}

/** Keeps what it is told; does besides what a test wants. */
class Recorder implements Watcher {
  readonly id: number;
  readonly told: string[] = [];
  act: (what: string) => void = () => {};

  constructor(id: number) {
    this.id = id;
  }

  accepted(connectionId: number): void {
    this.#tell(`accepted ${connectionId}`);
  }

  opened(): void {
    this.#tell("opened");
  }

  read(offset: number, length: number): void {
    this.#tell(`read ${offset} ${length}`);
  }

  ended(): void {
    this.#tell("ended");
  }

  failed(errno: number, tlsNumber: number): void {
    this.#tell(`failed ${errno} ${tlsNumber}`);
  }

  drained(): void {
    this.#tell("drained");
  }

  flushed(): void {
    this.#tell("flushed");
  }

  abandon(error: unknown): void {
    this.#tell(`abandoned: ${error}`);
  }

  #tell(what: string): void {
    this.told.push(what);
    this.act(what);
  }
}

function watched(loop: BatchLoop, id: number): Recorder {
  const recorder = new Recorder(id);
  loop.watch(recorder);
  return recorder;
}

/** Writes text of JavaScript's. */
function say(loop: BatchLoop, id: number, text: string): void {
  const offset = loop.reserve(id, text.length);
  loop.arena.set(Buffer.from(text, "latin1"), offset);
}

describe("turns", () => {
  it("are short as long as somebody waits for them, and a little longer", async () => {
    const { loop, reactor, clock, options } = makeLab({ arenaBytes: 1_000_000 });
    const quiet = watched(loop, 1);
    quiet.act = () => loop.shareTurns();
    const busy = watched(loop, 2);
    const limitAfter = ({ id }: Recorder): number => {
      reactor.happen([EVENT.DATA, id, 16, 100]);
      return reactor.credit[0] ?? 0;
    };
    const long = limitAfter(busy);
    const short = limitAfter(quiet);
    assert(short > 0 && short < options.arenaBytes, `${short}`);
    await clock.advance(15);
    assert.equal(limitAfter(quiet), short);
    await clock.advance(15);
    assert.equal(limitAfter(busy), short);
    await clock.advance(15);
    assert.equal(limitAfter(busy), options.arenaBytes);
    assert.equal(limitAfter(quiet), short);
    assert.notEqual(long, short);
  });
});

describe("a turn", () => {
  it("tells each connection what happened on it", () => {
    const { loop, reactor } = makeLab();
    const [one, other] = [watched(loop, 0x10001), watched(loop, 0x20002)];
    reactor.happen(
      [EVENT.ACCEPT, one.id, 7],
      [EVENT.OPEN, other.id],
      [EVENT.DATA, one.id, 16, 100],
      [EVENT.EOF, one.id],
      [EVENT.ERROR, other.id, -2, 46],
      [EVENT.DRAIN, one.id],
    );
    assert.deepEqual(one.told, ["accepted 7", "read 16 100", "ended", "drained"]);
    assert.deepEqual(other.told, ["opened", "failed -2 46"]);
  });

  it("performs all that was listed in it at once, and then tells who asked", () => {
    const { loop, reactor } = makeLab();
    const [one, other] = [watched(loop, 1), watched(loop, 2)];
    one.act = (what) => {
      if (what !== "opened") return;
      say(loop, other.id, "hello");
      loop.flushedSoon(one);
      loop.push(OPERATION.END, other.id, 0, 0);
    };
    other.act = () => loop.push(OPERATION.RESUME, other.id, 0, 0);
    reactor.happen([EVENT.OPEN, one.id], [EVENT.DRAIN, other.id]);
    assert.deepEqual(reactor.performed, [["write 2 hello", "end 2", "resume 2"]]);
    assert.deepEqual(one.told, ["opened", "flushed"]);
  });

  it("leaves nothing undone that its endings bring about", () => {
    const { loop, reactor } = makeLab();
    const one = watched(loop, 1);
    one.act = (what) => {
      if (what === "opened") loop.flushedSoon(one);
      else loop.later(() => loop.close(one, OPERATION.CLOSE));
    };
    reactor.happen([EVENT.OPEN, one.id]);
    assert.deepEqual(reactor.performed, [["close 1"]]);
  });

  it("tells nothing of a connection that was closed in it, nor of its successor in the table", () => {
    const { loop, reactor } = makeLab();
    const one = watched(loop, 0x10001);
    one.act = () => {
      loop.close(one, OPERATION.CLOSE);
      one.act = () => {};
    };
    reactor.happen([EVENT.OPEN, one.id], [EVENT.EOF, one.id]);
    const next = watched(loop, 0x20001);
    reactor.happen([EVENT.EOF, one.id], [EVENT.DRAIN, next.id]);
    assert.deepEqual([one.told, next.told], [["opened"], ["drained"]]);
  });

  it("does not leave open what a listener accepted that is closed by now", () => {
    const { loop, reactor } = makeLab();
    const listener = watched(loop, 1);
    listener.act = () => loop.close(listener, OPERATION.CLOSE);
    reactor.happen([EVENT.ACCEPT, 1, 8], [EVENT.ACCEPT, 1, 9]);
    assert.deepEqual(listener.told, ["accepted 8"]);
    assert.deepEqual(reactor.performed, [["close 1", "close 9"]]);
  });

  it("is survived by the other connections when the code of one breaks", () => {
    const { loop, reactor, unexpected } = makeLab();
    const [one, other] = [watched(loop, 1), watched(loop, 2)];
    const bug = new Error("a bug");
    for (const broken of ["opened", "flushed"]) {
      one.act = (what) => {
        if (what === broken) throw bug;
        if (what === "opened") loop.flushedSoon(one);
      };
      reactor.happen([EVENT.OPEN, one.id], [EVENT.OPEN, other.id]);
    }
    loop.later(() => {
      throw bug;
    });
    reactor.happen([EVENT.EOF, other.id]);
    assert.deepEqual(unexpected, [bug, bug, bug]);
    assert.deepEqual(other.told, ["opened", "opened", "ended"]);
    assert.equal(one.told.filter((what) => what === "abandoned: Error: a bug").length, 2);
  });
});

describe("outside a turn", () => {
  it("what belongs together is performed together, when the running microtasks are through", async () => {
    const { loop, reactor } = makeLab();
    say(loop, 1, "hello ");
    await Promise.resolve();
    say(loop, 1, "world");
    let wasCalled = false;
    loop.later(() => {
      wasCalled = true;
    });
    assert.deepEqual([reactor.performed, wasCalled], [[], false]);
    await settle();
    await new Promise((resolve) => process.nextTick(resolve));
    assert.deepEqual([reactor.performed, wasCalled], [[["write 1 hello world"]], true]);
  });

  it("a turn that comes first takes it along", () => {
    const { loop, reactor } = makeLab();
    const one = watched(loop, 1);
    say(loop, 1, "hello");
    reactor.happen([EVENT.OPEN, one.id]);
    assert.deepEqual(reactor.performed, [["write 1 hello"]]);
  });
});

describe("the lists", () => {
  it("are performed early when they are full, in order", () => {
    const { loop, reactor } = makeLab({ operationsMax: 3 });
    const one = watched(loop, 1);
    one.act = () => {
      for (let i = 0; i < 4; i++) {
        say(loop, 1, `${i}`);
        say(loop, 2, `${i}`);
      }
    };
    reactor.happen([EVENT.OPEN, one.id]);
    assert.deepEqual(reactor.performed, [
      ["write 1 0", "write 2 0", "write 1 1"],
      ["write 2 1", "write 1 2", "write 2 2"],
      ["write 1 3", "write 2 3"],
    ]);
  });

  it("keep what is composed when they get full in the middle of it", () => {
    const { loop, reactor } = makeLab({ operationsMax: 2 });
    const one = watched(loop, 1);
    one.act = () => {
      for (const [i, text] of ["a", "b", "c", "dddd", "e"].entries()) say(loop, 1 + (i % 2), text);
    };
    reactor.happen([EVENT.OPEN, one.id]);
    assert.deepEqual(reactor.performed, [
      ["write 1 a", "write 2 b"],
      ["write 1 c", "write 2 dddd"],
      ["write 1 e"],
    ]);
  });

  it("join neighbours of one connection", () => {
    const { loop, reactor } = makeLab();
    const one = watched(loop, 1);
    loop.arena.set(Buffer.from("abcdef"), 100);
    one.act = () => {
      loop.write(1, 100, 2);
      loop.write(1, 102, 1);
      loop.write(1, 104, 1);
      loop.write(2, 105, 1);
    };
    reactor.happen([EVENT.OPEN, one.id]);
    assert.deepEqual(reactor.performed, [["write 1 abc", "write 1 e", "write 2 f"]]);
  });

  it("never mix what is composed, however full they get", () => {
    const { loop, reactor } = makeLab({ operationsMax: 2, scratchBytes: 17_000 });
    const one = watched(loop, 1);
    const bytes = Buffer.concat(Array.from({ length: 5 }, (_, i) => Buffer.alloc(10_000, `${i}`)));
    let expected = "";
    one.act = () => {
      for (let i = 0; i < 7; i++) {
        say(loop, 1 + (i % 2), `<${i}>`);
        if (i % 2 === 0) expected += `<${i}>`;
        loop.copyIn(bytes, (offset, length) => loop.write(1, offset, length));
        expected += bytes.toString();
      }
    };
    reactor.happen([EVENT.OPEN, one.id]);
    const written = reactor.performed
      .flat()
      .filter((text) => text.startsWith("write 1 "))
      .map((text) => text.slice("write 1 ".length))
      .join("");
    assert.equal(written, expected);
  });

  it("do nothing when all is closed, while callbacks that wait still run", async () => {
    const { loop, reactor } = makeLab();
    const one = watched(loop, 1);
    say(loop, 1, "last words");
    let wasCalled = false;
    loop.later(() => {
      wasCalled = true;
    });
    loop.destroy();
    loop.destroy();
    assert.deepEqual([reactor.performed, reactor.isClosed], [[["write 1 last words"]], true]);
    say(loop, 1, "after");
    await settle();
    await new Promise((resolve) => process.nextTick(resolve));
    assert.deepEqual([reactor.performed.length, wasCalled, one.told], [1, true, []]);
  });
});
