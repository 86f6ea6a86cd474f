/** What every ZDS connection must do for the end that holds it. */
import assert from "node:assert/strict";
import { closeSync, fstatSync, statSync } from "node:fs";
import { describe, it } from "node:test";
import type { ZdsConnection } from "../../src/inpod/zds-connection.ts";
import { ownNetnsFd } from "../inpod/memory-connection.ts";
import { LeakCheck } from "../support/leak-check.ts";
import { afterTurn } from "../support/turn.ts";

/** A connection and whoever is at its other end. */
export interface ZdsLab {
  readonly connection: ZdsConnection;
  /** The descriptors stay the caller's. */
  deliver(data: Uint8Array, ...fds: number[]): void;
  /** The next packet from the connection. */
  take(): Promise<Uint8Array>;
  hangUp(): void;
  /** Closes what the lab opened, the connection as well. */
  close(): void;
}

const forever = new AbortController().signal;

export function zdsConnectionSuite(name: string, openLab: () => ZdsLab): void {
  describe(`${name} as a ZDS connection`, () => {
    function story(title: string, run: (lab: ZdsLab) => Promise<void>): void {
      it(title, async () => {
        const leaks = new LeakCheck();
        const lab = openLab();
        try {
          await run(lab);
        } finally {
          lab.close();
        }
        await leaks.assertNone();
      });
    }

    async function receive({ connection }: ZdsLab): Promise<number[] | undefined> {
      const packet = await connection.receive(forever);
      return packet === undefined ? undefined : [...packet.data];
    }

    story("keeps the borders and the order of packets", async (lab) => {
      lab.deliver(Uint8Array.of(1, 2));
      lab.deliver(Uint8Array.of(3));
      assert.deepEqual(await receive(lab), [1, 2]);
      assert.deepEqual(await receive(lab), [3]);
    });

    story("hands over descriptors, which are the receiver's own", async (lab) => {
      const fd = ownNetnsFd();
      lab.deliver(Uint8Array.of(1), fd);
      closeSync(fd);
      lab.deliver(Uint8Array.of(2));
      const [first, second] = [
        await lab.connection.receive(forever),
        await lab.connection.receive(forever),
      ];
      assert.deepEqual([first?.fds.length, second?.fds.length], [1, 0]);
      const received = first?.fds[0] as number;
      assert.equal(fstatSync(received).ino, statSync("/proc/self/ns/net").ino);
      closeSync(received);
    });

    story("waits for a packet that is not there yet", async (lab) => {
      const waiting = receive(lab);
      await turn();
      lab.deliver(Uint8Array.of(7));
      assert.deepEqual(await waiting, [7]);
    });

    story("sends packets as they were when they were sent", async (lab) => {
      const data = Uint8Array.of(1, 2, 3);
      lab.connection.send(data);
      data.fill(0);
      lab.connection.send(data.subarray(0, 1));
      assert.deepEqual([...(await lab.take())], [1, 2, 3]);
      assert.deepEqual([...(await lab.take())], [0]);
    });

    story("tells that the peer has hung up, after its last packet and ever after", async (lab) => {
      lab.deliver(Uint8Array.of(1));
      lab.hangUp();
      assert.deepEqual(await receive(lab), [1]);
      assert.equal(await receive(lab), undefined);
      assert.equal(await receive(lab), undefined);
    });

    story("wakes whoever waits when the peer hangs up", async (lab) => {
      const waiting = receive(lab);
      await turn();
      lab.hangUp();
      assert.equal(await waiting, undefined);
    });

    story("refuses to send to a peer that has hung up", async (lab) => {
      lab.hangUp();
      assert.throws(() => lab.connection.send(Uint8Array.of(1)), { code: "EPIPE" });
    });

    story("ends a wait with the signal's reason and loses no packet to it", async (lab) => {
      const abort = new AbortController();
      const waiting = lab.connection.receive(abort.signal);
      await turn();
      abort.abort(new Error("enough"));
      await assert.rejects(waiting, { message: "enough" });
      lab.deliver(Uint8Array.of(9));
      await assert.rejects(lab.connection.receive(abort.signal), { message: "enough" });
      assert.deepEqual(await receive(lab), [9]);
    });

    story("neither sends nor receives once closed, and closes twice", async (lab) => {
      lab.deliver(Uint8Array.of(1));
      lab.connection.close();
      lab.connection.close();
      assert.throws(() => lab.connection.send(Uint8Array.of(1)), {
        message: "the connection is closed",
      });
      await assert.rejects(lab.connection.receive(forever), {
        message: "the connection is closed",
      });
    });
  });
}

function turn(): Promise<void> {
  return new Promise(afterTurn);
}
