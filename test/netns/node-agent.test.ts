import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type TestContext, test } from "node:test";
import {
  type AttachOptions,
  attach,
  detach,
  list,
  picture,
} from "../../src/embedded/node-agent-client.ts";
import { Netns } from "../../src/net/netns.ts";
import { HandProxy } from "../embedded/hand-proxy.ts";
import { type LabHost, NetnsLab, requireNetns } from "../support/netns-lab.ts";
import { waitUntil } from "../support/wait-until.ts";

const skip = requireNetns("iptables-save");

/** A lab with one host, an agent process and, once connected, a proxy moved by hand. */
class AgentBench {
  readonly lab = new NetnsLab();
  readonly host: LabHost;
  readonly zdsPath: string;
  readonly controlPath: string;
  readonly #folder: string;
  readonly #t: TestContext;
  #agent: ChildProcess | undefined;

  constructor(t: TestContext) {
    this.#t = t;
    const folder = mkdtempSync(join(tmpdir(), "agent-"));
    this.#folder = folder;
    this.zdsPath = join(folder, "ztunnel", "zds.sock");
    this.controlPath = join(folder, "control", "agent.sock");
    this.host = this.lab.addHost("pod", { ipv4: "10.77.0.1/24" });
    t.after(async () => {
      await this.kill("SIGKILL");
      this.lab.close();
      rmSync(folder, { recursive: true });
    });
  }

  /** @param sbin the only tools in /usr/sbin and /sbin; default: what the machine has. */
  async startAgent(sbin?: readonly string[]): Promise<void> {
    const script = join(import.meta.dirname, "../embedded/node-agent-process.ts");
    const command = [process.execPath, script, this.zdsPath, this.controlPath];
    const [program = "", ...args] = sbin === undefined ? command : this.#with(sbin, command);
    this.#agent = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
    const lines = createInterface({ input: this.#agent.stdout as NodeJS.ReadableStream });
    for await (const line of lines) if (line.includes("node agent is ready")) break;
  }

  async start(sbin?: readonly string[]): Promise<HandProxy> {
    await this.startAgent(sbin);
    return this.connect();
  }

  /** @returns a proxy that agreed to an empty snapshot. */
  async connect(): Promise<HandProxy> {
    const proxy = new HandProxy(this.#t, this.zdsPath);
    assert.equal(await proxy.agree(), "snapshot-sent");
    return proxy;
  }

  /** Asks the agent for an attachment as `u1`. */
  ask(more: Partial<AttachOptions> = {}): Promise<string> {
    return attach(this.controlPath, {
      netns: this.host.netns,
      pid: undefined,
      workload: "default/client",
      serviceAccount: "client",
      uid: "u1",
      dnsCapture: false,
      ...more,
    });
  }

  /** Attaches with the proxy's consent. */
  async attach(proxy: HandProxy): Promise<void> {
    const attached = this.ask();
    assert.equal(await proxy.agree(), "add u1 +fd");
    await attached;
  }

  /** The command in a mount namespace where the folder holds copies of the given tools only. */
  #with(sbin: readonly string[], command: readonly string[]): string[] {
    const folder = mkdtempSync(join(this.#folder, "sbin-"));
    for (const tool of sbin) copyFileSync(`/usr/sbin/${tool}`, join(folder, tool));
    const mount = `mount --bind ${folder} /usr/sbin; exec "$@"`;
    return ["unshare", "--mount", "sh", "-ec", mount, "sh", ...command];
  }

  get agentPid(): number {
    return this.#agent?.pid ?? assert.fail("no agent runs");
  }

  /** @returns the exit code. */
  async kill(signal: NodeJS.Signals): Promise<number | null> {
    const agent = this.#agent;
    if (agent === undefined || agent.exitCode !== null || agent.signalCode !== null) return null;
    const exited = once(agent, "exit");
    agent.kill(signal);
    return (await exited)[0] as number | null;
  }

  get hasRules(): boolean {
    assert.equal(/ISTIO/.test(this.#saved()), this.#isRouted);
    return this.#isRouted;
  }

  async untilClean(): Promise<void> {
    await waitUntil(() => !/ISTIO/.test(this.#saved()) && !this.#isRouted, "rules stay");
  }

  get #isRouted(): boolean {
    return this.lab.exec(this.host, "ip", "rule").includes("fwmark");
  }

  #saved(): string {
    return this.lab.exec(this.host, "iptables-save");
  }
}

test("attach installs the rules and hands the namespace to the proxy", { skip }, async (t) => {
  const bench = new AgentBench(t);
  const proxy = await bench.start();
  const attached = bench.ask();
  const next = await proxy.next();
  assert.deepEqual(next?.request, {
    kind: "add",
    uid: "u1",
    workload: { name: "client", namespace: "default", serviceAccount: "client" },
  });
  const netns = Netns.open(bench.host.path);
  netns.close();
  assert.deepEqual(next?.netnsKeys, [netns.key]);
  assert.equal(bench.hasRules, true);
  proxy.answer();
  assert.match(
    await attached,
    /^attached default\/client at \/run\/netns\/\S+ \(IPv4.*, uid u1\)$/,
  );
  assert.match(
    await list(bench.controlPath),
    /^WORKLOAD .*\ndefault\/client +client +\/run\/netns\/\S+ +ipv4\S*, \S+ +u1\n1 proxy connected$/,
  );
});

test("detach removes the rules and deletes the workload", { skip }, async (t) => {
  const bench = new AgentBench(t);
  const proxy = await bench.start();
  await bench.attach(proxy);
  const detached = detach(bench.controlPath, "default/client");
  assert.equal(await proxy.agree(), "del u1");
  assert.match(await detached, /^detached default\/client /);
  assert.equal(bench.hasRules, false);
  assert.deepEqual((await picture(bench.controlPath)).workloads, []);
});

test("a workload that the proxy refuses is not attached", { skip }, async (t) => {
  const bench = new AgentBench(t);
  const proxy = await bench.start();
  const attached = assert.rejects(bench.ask(), { message: "no ports" });
  await proxy.next();
  proxy.answer("no ports");
  assert.equal(await proxy.agree(), "del u1");
  await attached;
  assert.equal(bench.hasRules, false);
  await bench.attach(proxy);
});

test("attach without a proxy says so and leaves no rule", { skip }, async (t) => {
  const bench = new AgentBench(t);
  await bench.startAgent();
  await assert.rejects(bench.ask(), /no ztunnel is connected to /);
  assert.equal(bench.hasRules, false);
});

test("an agent that is told to stop removes all rules", { skip }, async (t) => {
  const bench = new AgentBench(t);
  await bench.attach(await bench.start());
  assert.equal(await bench.kill("SIGTERM"), 0);
  assert.equal(bench.hasRules, false);
});

test("an agent that is killed leaves no rule", { skip }, async (t) => {
  const bench = new AgentBench(t);
  await bench.attach(await bench.start());
  assert.equal(bench.hasRules, true);
  await bench.kill("SIGKILL");
  await bench.untilClean();
});

test("an agent whose janitor is killed ends without leaving a rule", { skip }, async (t) => {
  const bench = new AgentBench(t);
  await bench.attach(await bench.start());
  const pid = bench.agentPid;
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
  process.kill(Number(children), "SIGKILL");
  await bench.untilClean();
});

test("a restarted agent serves the same paths, and a proxy that returns hears all again", {
  skip,
}, async (t) => {
  const bench = new AgentBench(t);
  await bench.attach(await bench.start());
  await bench.kill("SIGKILL");
  await bench.untilClean();
  const proxy = await bench.start();
  await bench.attach(proxy);
  proxy.close();
  const next = new HandProxy(t, bench.zdsPath);
  assert.equal(await next.agree(), "add u1 +fd");
  assert.equal(await next.agree(), "snapshot-sent");
});

test("a namespace that disappears takes its workload and rules along", { skip }, async (t) => {
  const bench = new AgentBench(t);
  const proxy = await bench.start();
  const sleeper = spawn(
    "unshare",
    ["--net", "sh", "-c", "ip link set lo up; echo up; exec sleep 60"],
    {
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  t.after(() => sleeper.kill("SIGKILL"));
  await once(sleeper.stdout, "data");
  const attached = bench.ask({ netns: undefined, pid: sleeper.pid });
  assert.equal(await proxy.agree(), "add u1 +fd");
  await attached;
  sleeper.kill("SIGKILL");
  assert.equal(await proxy.agree(), "del u1");
  await waitUntil(
    async () => (await picture(bench.controlPath)).workloads.length === 0,
    "the workload stays",
  );
});

test("on a machine that has nft and no iptables, nft installs the rules and removes them", {
  skip: requireNetns("/usr/sbin/nft"),
}, async (t) => {
  const bench = new AgentBench(t);
  const rules = (): string => bench.lab.exec(bench.host, "nft", "list", "tables");
  const proxy = await bench.start(["nft", "ip"]);
  await bench.attach(proxy);
  assert.match(await list(bench.controlPath), /ipv4\+ipv6, nftables/);
  assert.match(rules(), /^table inet istio-ambient-nat$/m);
  assert.equal(await bench.kill("SIGTERM"), 0);
  assert.equal(rules(), "");
});

test("on a machine without any of the tools, attach says which are missing", {
  skip,
}, async (t) => {
  const bench = new AgentBench(t);
  await bench.start(["ip"]);
  await assert.rejects(
    bench.ask(),
    /^Error: nothing can install redirect rules: .*iptables-save is not installed, nft is not installed/,
  );
});

test("what cannot be attached is refused in words", { skip }, async (t) => {
  const bench = new AgentBench(t);
  const proxy = await bench.start();
  await bench.attach(proxy);
  for (const [more, message] of [
    [{}, /^u1 is attached already$/],
    [{ uid: "u2" }, /^\/run\/netns\/\S+ is attached already as u1$/],
    [{ uid: "u2", netns: "/proc/self/ns/net" }, /is the node's own network namespace$/],
    [{ uid: "u2", netns: "/proc/self/ns/mnt2" }, /^can't open \/proc\/self\/ns\/mnt2: ENOENT/],
    [{ uid: "u2", netns: "/dev/null" }, /^can't open \/dev\/null: .*no network namespace$/],
    [{ uid: "u2", workload: "client" }, /^workload client is not NAMESPACE\/NAME$/],
    [{ uid: "u2", netns: undefined }, /^exactly one of a netns and a pid is needed$/],
    [{ uid: "u2", serviceAccount: "" }, /^bad attach request: serviceAccount is missing$/],
  ] as const) {
    await assert.rejects(bench.ask(more), { message });
  }
  await assert.rejects(detach(bench.controlPath, "u9"), {
    message: "u9 is not attached",
  });
  await assert.rejects(list(`${bench.controlPath}.not`), {
    message: /^node agent at \S+: nobody listens, is it running\?$/,
  });
});
