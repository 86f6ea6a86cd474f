import assert from "node:assert/strict";
import { test } from "node:test";
import { parseUdp6Counters, parseUdpCounters } from "../../src/net/udp-counters.ts";
import { RECORDED_SNMP, RECORDED_SNMP6 } from "../support/recorded-sockets.ts";

const NOTHING = { received: 0, sent: 0, unwanted: 0, errors: 0 };

test("the counters of UDP are those of the kernel's names", () => {
  const udp = parseUdpCounters(RECORDED_SNMP);
  assert.deepEqual(udp, { received: 1204, sent: 1180, unwanted: 3, errors: 7 });
  const udp6 = parseUdp6Counters(RECORDED_SNMP6);
  assert.deepEqual(udp6, { received: 41, sent: 39, unwanted: 2, errors: 5 });
});

test("their order does not matter, and neither do unknown ones", () => {
  const text = "Udp: Novel OutDatagrams InDatagrams\nUdp: 5 18446744073709551615 2\n";
  assert.deepEqual(parseUdpCounters(text), { ...NOTHING, received: 2, sent: 2 ** 64 });
});

test("a text that does not speak of UDP is nothing", () => {
  for (const text of ["", "Udp:", "Tcp: A\nTcp: 1\n", "Udp: InDatagrams\n", RECORDED_SNMP6]) {
    assert.deepEqual(parseUdpCounters(text), NOTHING, text);
  }
  for (const text of ["", "Udp6InDatagrams", "Udp6InDatagrams -1\n", RECORDED_SNMP]) {
    assert.deepEqual(parseUdp6Counters(text), NOTHING, text);
  }
});
