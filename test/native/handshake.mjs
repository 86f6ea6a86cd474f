/**
 * One tunnel over loopback, both ends in one reactor, by the compiled code of `net`: for Nodes that
 * can't run TypeScript. Given a file with PEM texts; prints what came through as JSON.
 *
 *   node handshake.mjs { chainPem, keyPem, rootsPem }.json
 */
import { readFileSync } from "node:fs";

const [certificatePath] = process.argv.slice(2);
const [ACCEPT, OPEN, DATA] = [1, 2, 3];
const WRITE = 1;
const ARENA_BYTES = 256 * 1024;
const TEXT = "through the tunnel";

/** @returns what the server's side read. @throws Error in the words of `net`. */
async function tunnel(groups) {
  const { native } = await import("../../dist/net/native.js");
  const { createReactor } = await import("../../dist/net/reactor.js");
  const { makeTlsContext } = await import("../../dist/net/tls-context.js");
  const { failureOf } = await import("../../dist/net/reactor-failure.js");
  return new Promise((resolve, reject) => {
    const reactor = createReactor(
      {
        arenaBytes: ARENA_BYTES,
        scratchBytes: 1024,
        eventsMax: 64,
        operationsMax: 64,
        connectionsMax: 8,
        plainReadBytes: 16 * 1024,
        cipherReadBytes: 64 * 1024,
        cipherSendBytes: 64 * 1024,
        acceptsPerTurn: 4,
        queueBytesMax: 1024 * 1024,
        rekeyBytes: 1024 * 1024,
      },
      (count) => {
        for (let i = 0; i < count; i++) handle(...reactor.events.subarray(4 * i, 4 * i + 4));
      },
    );
    const end = (settle, value) => {
      reactor.close();
      settle(value);
    };
    let context;
    const handle = (kind, id, a, b) => {
      if (kind === ACCEPT) reactor.startTls(a, context, true);
      else if (kind === OPEN && id === client) {
        const { written } = new TextEncoder().encodeInto(TEXT, reactor.arena.subarray(ARENA_BYTES));
        reactor.operations.set([WRITE, client, ARENA_BYTES, written]);
        reactor.flush(1);
      } else if (kind === DATA) end(resolve, Buffer.from(reactor.arena.slice(a, a + b)).toString());
      else if (kind !== OPEN) end(reject, new Error(`${JSON.stringify(failureOf(a, b))} on ${id}`));
    };
    let client;
    try {
      const pems = JSON.parse(readFileSync(certificatePath, "utf8"));
      context = makeTlsContext({ ...pems, tls12: false, groups });
      const loopback = { family: "ipv4", type: "stream" };
      const bind = { ip: "127.0.0.1", port: 0 };
      const listener = native.socketInNamespace({ ...loopback, bind, listenBacklog: 4 }).fd;
      reactor.listen(listener);
      const { port } = native.localAddress(listener);
      client = reactor.connect(native.socketInNamespace(loopback).fd, "127.0.0.1", port);
      reactor.startTls(client, context, false);
    } catch (error) {
      end(reject, error);
    }
  });
}

/** "yes", or why not. */
async function outcome(groups) {
  try {
    return (await tunnel(groups)) === TEXT ? "yes" : "no: other bytes came out";
  } catch (error) {
    return error.message;
  }
}

const result = {
  openssl: process.versions.openssl,
  mesh: await outcome("X25519:P-256:P-384:?X25519MLKEM768"),
  postQuantum: await outcome("X25519MLKEM768"),
};
process.stdout.write(JSON.stringify(result));
