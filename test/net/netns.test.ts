import assert from "node:assert/strict";
import { openSync } from "node:fs";
import { test } from "node:test";
import { Netns, ownNetns } from "../../src/net/netns.ts";
import { LeakCheck } from "../support/leak-check.ts";

test("two descriptors of one namespace have the same key", () => {
  const first = ownNetns();
  const second = new Netns(openSync("/proc/self/ns/net", "r"));
  assert.notEqual(first.fd, second.fd);
  assert.equal(first.key, second.key);
  first.close();
  second.close();
});

test("closing twice closes once", async () => {
  const leaks = new LeakCheck();
  const netns = ownNetns();
  netns.close();
  // Takes the same number, which the second close must leave alone.
  const next = ownNetns();
  assert.equal(next.fd, netns.fd);
  netns.close();
  assert.equal(ownNetnsKey(), next.key);
  next.close();
  await leaks.assertNone();
});

test("something else is refused by name, and closed", async () => {
  const leaks = new LeakCheck();
  assert.throws(() => Netns.open("/dev/null"), {
    name: "NetError",
    code: "not-a-netns",
    message: "/dev/null is no network namespace",
  });
  await leaks.assertNone();
  assert.throws(() => Netns.open("/nowhere"), { code: "ENOENT" });
});

function ownNetnsKey(): string {
  const netns = ownNetns();
  netns.close();
  return netns.key;
}
