import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { test } from "node:test";
import { native } from "../../src/net/native.ts";
import { readTcpInfo } from "../../src/net/tcp-info.ts";
import { afterTurn } from "./turn.ts";

test("the callback runs once, after the promises and ticks of the turn that asked", async () => {
  const order: string[] = [];
  await new Promise<void>((resolve) => {
    afterTurn(() => {
      order.push("after the turn");
      resolve();
    });
    queueMicrotask(() => order.push("microtask"));
    process.nextTick(() => order.push("tick"));
    order.push("the turn itself");
  });
  assert.equal(order[0], "the turn itself");
  assert.equal(order[3], "after the turn");
  assert.equal(order.length, 4);
});

test("asked for by the first of two reads that are ready, it runs after both", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const accepted: Socket[] = [];
  const clients: Socket[] = [];
  for (let i = 0; i < 2; i++) {
    const arriving = once(server, "connection");
    const client = connect(port, "127.0.0.1");
    await once(client, "connect");
    clients.push(client);
    accepted.push((await arriving)[0] as Socket);
  }
  const order: string[] = [];
  await new Promise<void>((resolve) => {
    for (const client of clients) {
      client.once("data", () => {
        order.push("read");
        if (order.length > 1) return;
        afterTurn(() => {
          order.push("after the turn");
          resolve();
        });
      });
    }
    for (const socket of accepted) socket.write("x");
    // Within this turn: on a busy machine it takes the kernel a while to hand them over.
    for (const client of clients) while (readTcpInfo(native, fdOf(client)).receivedBytes < 1);
  });
  assert.deepEqual(order, ["read", "read", "after the turn"]);
  for (const socket of [...clients, ...accepted]) socket.destroy();
  server.close();
});

function fdOf(socket: Socket): number {
  return (socket as unknown as { _handle: { fd: number } })._handle.fd;
}
