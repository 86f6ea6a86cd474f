import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { complaintsIn } from "../../bench/kept-logs.ts";
import { requireNetns } from "../support/netns-lab.ts";

const BENCH = join(import.meta.dirname, "../../bench");
const COMPLAINT = '2026-11-23T18:45:00.000000Z\terror\taccess\tconnection complete\terror="why"\n';
const OTHER = "2026-11-23T18:45:00.000000Z\tinfo\taccess\tconnection complete\tbytes_sent=1\n";

test("of each log the last complaints are told, in either format", (t) => {
  const folder = temporaryFolder(t);
  const json = '{"level":"warn","time":"now","scope":"x","message":"watch out"}';
  writeFileSync(join(folder, "a.log"), `${OTHER}${json}\n${OTHER}--- ended with SIGSEGV\n`);
  writeFileSync(join(folder, "b.log"), COMPLAINT.repeat(100));
  writeFileSync(join(folder, "c.log"), "");
  const lines = complaintsIn(folder).split("\n");
  assert.deepEqual(lines.slice(0, 4), [
    "a.log: 2 complaints in 4 lines",
    json,
    "--- ended with SIGSEGV",
    "b.log: 100 complaints in 100 lines, the last 20:",
  ]);
  assert.deepEqual(lines.slice(4, 24), Array(20).fill(COMPLAINT.trim()));
  assert.deepEqual(lines.slice(24), [
    "c.log: 0 complaints in 0 lines",
    `all lines are in ${folder}`,
    "",
  ]);
});

test("a bench that went well leaves no logs", async (t) => {
  const { ended, logs } = runScript(t, `console.log(logs);`);
  const { status, stderr, stdout } = await ended;
  assert.deepEqual({ status, stderr }, { status: 0, stderr: "" });
  assert.equal(existsSync(logs(stdout)), false);
});

test("one that fails, or is told to end, tells the complaints and leaves all lines", async (t) => {
  const failed = runScript(t, `throw new Error("the load failed");`);
  const { status, stderr } = await failed.ended;
  assert.equal(status, 1);
  assert.match(stderr, /\nnode\.log: 1 complaints in 1 lines\n.*why/);
  assert.match(stderr, /the load failed/);
  assert.match(
    stderr,
    /: \d+ packets lost of full queues, \d+ addresses .*, \d+ refused by a full/,
  );
  assert.deepEqual(readdirSync(failed.logs(stderr)), ["node.log"]);

  const hanging = runScript(t, `console.log("hangs"); setInterval(() => {}, 1000);`);
  await once(hanging.child.stdout as NodeJS.ReadableStream, "data");
  hanging.child.kill("SIGTERM");
  const killed = await hanging.ended;
  assert.equal(killed.signal, "SIGTERM");
  assert.match(killed.stderr, /\nnode\.log: 1 complaints/);
  assert.deepEqual(readdirSync(hanging.logs(killed.stderr)), ["node.log"]);
});

test("a connection that fails between two nodes is told as both proxies saw it, and with its port", {
  skip: requireNetns("iptables", "cc"),
}, async (t) => {
  const { ended, logs } = runScript(
    t,
    `
      import { waitUntil } from "${BENCH}/../test/support/wait-until.ts";
      import { runLoad } from "${BENCH}/load/run-load.ts";
      import { PodsStage } from "${BENCH}/path/pods-stage.ts";
      const stage = await PodsStage.start({ podsPerNode: 1 });
      try {
        await runLoad(stage.client(0), "connect-rate", 1, 1, stage.server(0).ipv4, 1);
      } finally {
        const nodes = [...stage.lab.nodes.values()];
        const isTold = (node) => node.lines.some((line) => line.includes("connection complete"));
        await waitUntil(() => nodes.every(isTold), "no proxy told of the connection");
        await stage.close();
      }
      `,
  );
  const { status, stderr } = await ended;
  assert.equal(status, 1, stderr);
  const [, port] = /receive: Connection reset by peer, from port (\d+), \d+ ms/.exec(stderr) ?? [];
  assert.ok(port !== undefined, stderr);
  const [ofClient, ofServer] = ["node-a", "node-b"].map(
    (node) =>
      new RegExp(`\\n${node}\\.log: .*?(?=\\n[\\w-]+\\.log: |\\nall lines)`, "s").exec(stderr)?.[0],
  );
  assert.match(
    ofClient ?? "",
    new RegExp(`\terror\t.*src\\.addr=10\\.80\\.1\\.1:${port} .*error=`),
  );
  assert.match(
    ofServer ?? "",
    /\terror\t.*direction="inbound".*error="connection failed: .*refused/i,
  );
  assert.deepEqual(readdirSync(logs(stderr)).sort(), [
    "control.log",
    "node-a.log",
    "node-b.log",
    "node.log",
  ]);
});

/** A bench with a complaint in its logs, whose folder is `logs` there. */
function runScript(
  t: TestContext,
  code: string,
): {
  readonly child: ChildProcess;
  readonly ended: Promise<{ status: number; signal: string; stdout: string; stderr: string }>;
  /** @param output that names them. */
  readonly logs: (output: string) => string;
} {
  const script = join(temporaryFolder(t), "script.ts");
  const keep = `import { writeFileSync } from "node:fs";
    import { keepLogs } from "${BENCH}/kept-logs.ts";
    const logs = keepLogs();
    writeFileSync(logs + "/node.log", ${JSON.stringify(COMPLAINT)});`;
  writeFileSync(script, `${keep}\n${code}`);
  const child = spawn(process.execPath, [script], { stdio: ["ignore", "pipe", "pipe"] });
  const output = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].on("data", (chunk: Buffer) => {
      output[name] += chunk.toString();
    });
  }
  t.after(() => {
    child.kill("SIGKILL");
    for (const text of Object.values(output)) {
      const folder = text.match(/\S*\/out\/logs\/\S+/)?.[0];
      if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
    }
  });
  return {
    child,
    ended: once(child, "close").then(([status, signal]) => ({ status, signal, ...output })),
    logs: (text) => text.match(/\S*\/out\/logs\/\S+/)?.[0] ?? assert.fail(text),
  };
}

function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "ztunnel-bench-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}
