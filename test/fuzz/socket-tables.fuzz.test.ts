import assert from "node:assert/strict";
import fc from "fast-check";
import { NetError } from "../../src/net/net-error.ts";
import { type DiagEntry, takeDiagAnswer } from "../../src/net/socket-diag.ts";
import { parseUdp6Counters, parseUdpCounters } from "../../src/net/udp-counters.ts";
import { RECORDED_DIAG, RECORDED_SNMP, RECORDED_SNMP6 } from "../support/recorded-sockets.ts";
import { fuzz, lawful, mutated } from "./fuzz.ts";

const answer = fc
  .array(fc.constantFrom(...Object.values(RECORDED_DIAG)), { minLength: 1, maxLength: 4 })
  .map((messages) => Uint8Array.from(Buffer.from(messages.join(""), "hex")));

fuzz(
  "the kernel's list of sockets is read or refused, never beyond its end",
  fc.property(mutated(answer), (bytes) => {
    const entries: DiagEntry[] = [];
    const isRefusal = (error: unknown): boolean =>
      error instanceof NetError && error.code === "socket-diag";
    const end = lawful(() => takeDiagAnswer(bytes, (entry) => entries.push(entry)), isRefusal);
    assert.ok(end === undefined || end >= 0);
    for (const { state, mark, remote } of entries) {
      assert.ok(state >= 0 && (mark ?? 0) >= 0 && remote.port >= 0 && remote.ip.length > 0);
    }
  }),
);

fuzz(
  "the kernel's counters of UDP are numbers, whatever it writes",
  fc.property(
    mutated(fc.constantFrom(RECORDED_SNMP, RECORDED_SNMP6).map((text) => Buffer.from(text))),
    (bytes) => {
      const text = Buffer.from(bytes).toString("latin1");
      for (const counters of [parseUdpCounters(text), parseUdp6Counters(text)]) {
        assert.ok(Object.values(counters).every(Number.isFinite), JSON.stringify(text));
      }
    },
  ),
);
