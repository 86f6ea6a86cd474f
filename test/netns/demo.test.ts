import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { runCommand } from "../support/command.ts";
import { DemoRun, MAIN } from "../support/demo-run.ts";
import { requireNetns } from "../support/netns-lab.ts";

const skip = requireNetns("iptables", "unshare", "setpriv");

const ENDED_AFTER_MS = [300, 1_200, 2_500] as const;

test("the demo is as it should be and leaves no process", { skip }, async (t) => {
  const run = new DemoRun(t);
  const output = await run.output;
  assert.equal(await run.exitCode(), 0, output);
  for (const part of [
    /client {4}POST http:\/\/\S+ → 200 hello 10\.77\.0\.11, you said swordfish-/,
    /intruder {2}POST http:\/\/\S+ → refused: /,
    /256 MiB to \S+ → [\d.]+ s/,
    /10\.77\.0\.11:\d+ → 10\.77\.0\.21:15008 .* encrypted \(17 03 03\)/,
    /in 0 on the wire/,
    /Access log of node-b\n {2}.*src\.workload="client"/,
    /istio_tcp_connections_opened_total +client → server +\+1\n/,
    /All as it should be\./,
  ]) {
    assert.match(output, part);
  }
  assert.deepEqual(await run.leftovers(), []);
});

/** Nobody, who can do what anybody can. */
const AS_USER = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] as const;
/** Root without its privileges, who reads dist/ wherever it lies, and may not map root (Linux 5.12). */
const AS_POWERLESS_ROOT = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] as const;

/** Whether users may do so is up to the machine, also in CI. */
function noUserNamespaces(): string | false {
  const work = `mount -t tmpfs tmpfs /run && ip link set lo up && test -r ${MAIN}`;
  const enter = ["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c", work];
  const [program, ...args] = [...AS_USER, ...enter];
  const { status, stderr } = spawnSync(program, args, { encoding: "utf8" });
  return status !== 0 && `users can't make user namespaces, or not read dist/ there: ${stderr}`;
}

test("the demo shows a user without privileges the same", {
  skip: skip || noUserNamespaces(),
}, async (t) => {
  const run = new DemoRun(t, [], AS_USER);
  const output = await run.output;
  assert.equal(await run.exitCode(), 0, output);
  assert.match(output, /All as it should be\./);
  assert.deepEqual(await run.leftovers(), []);
});

test("to whom the machine allows no namespaces, the demo says in one line what it takes", {
  skip,
}, async () => {
  const { exitCode, stdout, stderr } = await runCommand(["demo"], {
    cwd: "/",
    prefix: AS_POWERLESS_ROOT,
  });
  assert.deepEqual([exitCode, stdout, stderr.length], [1, "", 1], stderr.join("\n"));
  assert.match(
    stderr[0] ?? "",
    /^ztunnel: the demo needs root, or unprivileged user namespaces \(sysctl user\.max_user_namespaces above 0, kernel\.unprivileged_userns_clone=1, kernel\.apparmor_restrict_unprivileged_userns=0\): unshare: ./,
  );
});

test("without iptables the demo names the package in one line", { skip }, async () => {
  // Debian has it in a folder of its own; ip is elsewhere.
  const hide = 'mount -t tmpfs tmpfs /usr/sbin && exec "$@"';
  const { exitCode, stdout, stderr } = await runCommand(["demo"], {
    cwd: "/",
    environment: { PATH: "/usr/bin:/bin" },
    prefix: ["unshare", "--mount", "sh", "-c", hide, "sh"],
  });
  assert.deepEqual(
    [exitCode, stdout, stderr],
    [
      1,
      "",
      ["ztunnel: missing tools: apt-get install iptables (or run the demo with --install as root)"],
    ],
  );
});

for (const signal of ["SIGINT", "SIGKILL"] as const) {
  for (const afterMs of ENDED_AFTER_MS) {
    test(`the demo ended by ${signal} after ${afterMs} ms leaves no process`, {
      skip,
    }, async (t) => {
      const run = new DemoRun(t, ["--keep"]);
      await delay(afterMs);
      run.kill(signal);
      const exitCode = await run.exitCode();
      // Nothing can have been shown by then; nobody is to take that for a success.
      if (afterMs === ENDED_AFTER_MS[0]) assert.notEqual(exitCode, 0);
      assert.deepEqual(await run.leftovers(), []);
    });
  }
}
