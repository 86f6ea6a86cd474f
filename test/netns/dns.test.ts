/** DNS of real pods, behind istio-cni's rules, with real resolvers and dig. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { encode } from "dns-packet";
import type { SocketReport } from "../../src/admin/socket-report.ts";
import { answersOf, dnsQuery, dnsReply, ednsOf } from "../support/dns-client.ts";
import { askFrom, datagramsOf, dig, ScriptedResolver, startDnsmasq } from "../support/dns-lab.ts";
import { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { waitUntil } from "../support/wait-until.ts";

const RECORDED = join(import.meta.dirname, "../fixtures/ztunnel");
/** Where the pods of the recording asked; captured, so that nobody need be there. */
const NAMESERVER = "10.77.0.1";
const NAMESERVER_V6 = "fd77::1";
const SILENT = "10.77.0.41";
const SCRIPTED = "10.77.0.42";
const NOBODY = "10.77.0.43";
const MANY = 200;

/** As the upstream of the recording, and some names more. */
const RECORDS = [
  "--host-record=ext.example.com,10.77.0.32",
  ...["--host-record=two.example.com,10.77.0.32", "--host-record=two.example.com,10.77.0.33"],
  ...["--local=/example.com/", "--local=/cluster.local/", "--local=/arpa/"],
  "--txt-record=text.example.com,as it is",
  "--srv-host=_x._tcp.example.com,ext.example.com,8080,1,2",
];

/** Words of dig: other opcodes, classes, versions and options of EDNS, flags, sizes, and names that are not there. */
const UNUSUAL = [
  ["+opcode=STATUS", "one.example.com"],
  ["+opcode=NOTIFY", "example.com", "SOA"],
  ["+tcp", "+opcode=NOTIFY", "example.com", "SOA"],
  ["+opcode=14", "one.example.com"],
  ["-c", "CH", "version.bind", "TXT"],
  ["+norecurse", "two.example.com"],
  ["+cdflag", "+adflag", "two.example.com"],
  ["+noedns", "two.example.com"],
  ["+edns=1", "+noednsneg", "two.example.com"],
  ["+ednsopt=65001:00ff", "+nsid", "+subnet=10.1.0.0/16", "two.example.com"],
  ["+noedns", "+ignore", "many.example.com"],
  ["+bufsize=600", "+ignore", "many.example.com"],
  ["+tcp", "many.example.com"],
  ["text.example.com", "ANY"],
  ["nobody.example.com"],
  ["two.example.com", "AAAA"],
  ["two.example.com", "TYPE65399"],
] as const;

describe("DNS", { skip: requireNetns("dig", "dnsmasq", "unshare", "ss") }, () => {
  let lab: MeshLab;
  let upstream: { queries(): readonly string[] };

  before(async () => {
    lab = await startLab();
    const gateway = lab.host("gateway");
    lab.net.exec(gateway, "ip", "addr", "add", `${NAMESERVER_V6}/64`, "dev", "eth0", "nodad");
    const hosts = join(lab.folder, "many");
    const lines = Array.from({ length: MANY }, (_, n) => `10.1.0.${n} many.example.com\n`);
    writeFileSync(hosts, lines.join(""));
    const options = [...RECORDS, `--addn-hosts=${hosts}`];
    upstream = await startDnsmasq(lab.net, gateway, lab.folder, ...options);
  });
  after(() => lab?.close());

  const results = (node = "node-a"): string[] =>
    lab
      .node(node)
      .lines.filter((line) => line.includes("\tdns\t"))
      .map((line) => line.split("\t").slice(3).join("\t"));

  describe("as recorded of the original", () => {
    for (const { what, query, reply, tcp, log } of recordedQueries()) {
      const transport = tcp ? "tcp" : "udp";
      test(`${what} by ${transport}`, async () => {
        const before = results().length;
        const asked = Buffer.from(query, "hex");
        if (reply === "TimeoutError") {
          const socket = datagramsOf(lab.host("client1"));
          socket.on("message", () => assert.fail("there is an answer"));
          socket.send(asked, 53, NAMESERVER);
          // Whatever comes next shows that the server has seen it.
          await askFrom(lab.host("client1"), NAMESERVER, "udp", dnsQuery("echo", "A"));
          await waitUntil(() => results().length > before, "no line in the log");
          socket.close();
          return;
        }
        const got = await askFrom(lab.host("client1"), NAMESERVER, transport, asked);
        const expected = Buffer.from(reply, "hex");
        const isForwarded = log.includes("forward");
        // The original answers other opcodes itself; here the upstream does.
        if (log.startsWith("unimplemented")) assert.equal(dnsReply(got).rcode, "REFUSED");
        else assert.deepEqual(comparable(got, isForwarded), comparable(expected, isForwarded));
        // What has no question that can be read leaves no line there nor here.
        if (log === "") return;
        await waitUntil(() => results().length > before, "no line in the log");
        if (!log.startsWith("unimplemented")) assert.equal(results()[before], log);
      });
    }
  });

  test("dig in a pod gets names of the mesh by UDP and TCP, with what else it sends", async () => {
    const host = lab.host("client1");
    const at = `@${NAMESERVER}`;
    for (const name of ["echo", "echo.default", "echo.default.svc.cluster.local"]) {
      assert.equal(await dig(lab.net, host, at, "+short", name), "10.78.0.1\n");
      assert.equal(await dig(lab.net, host, at, "+tcp", "+short", name), "10.78.0.1\n");
    }
    const whole = await dig(lab.net, host, at, "+dnssec", "echo", "AAAA");
    assert.match(whole, /status: NOERROR.*\n;; flags: qr aa rd ra; QUERY: 1, ANSWER: 0/);
    assert.match(whole, /EDNS: version: 0, flags: do; udp: 1232/);
    assert.equal(await dig(lab.net, host, at, "+short", "text.example.com", "TXT"), '"as it is"\n');
    const srv = await dig(lab.net, host, at, "_x._tcp.example.com", "SRV");
    assert.match(srv, /ANSWER SECTION:\n_x\._tcp\.example\.com\.\s+60\s+IN\s+SRV\s+1 2 8080/);
    assert.match(srv, /ADDITIONAL SECTION:\next\.example\.com\.\s+60\s+IN\s+A\s+10\.77\.0\.32/);
  });

  test("dig sees through the proxy what the nameserver itself says, however it asks", async () => {
    // The nameserver answers in turns, and leaves out the last ones of what is too long.
    const plain = (text: string): string =>
      text
        .split("\n")
        .filter((line) => !/^(;; (Query time|SERVER|WHEN)|; <<>> DiG)/.test(line))
        .map((line) => line.replace(/, id: \d+|10\.1\.0\.\d+/g, ""))
        .toSorted()
        .join("\n");
    for (const words of UNUSUAL) {
      const [seen, said] = await Promise.all(
        ["client1", "gateway"].map((name) =>
          dig(lab.net, lab.host(name), `@${NAMESERVER}`, "+nocookie", ...words),
        ),
      );
      assert.equal(plain(seen ?? ""), plain(said ?? ""), words.join(" "));
      assert.match(said ?? "", /;; ->>HEADER<<-/);
    }
  });

  test("an answer that is too long comes by TCP", async () => {
    const host = lab.host("client1");
    const cut = await dig(lab.net, host, `@${NAMESERVER}`, "+ignore", "many.example.com");
    assert.match(cut, /flags: qr aa tc rd ra/);
    const whole = await dig(lab.net, host, `@${NAMESERVER}`, "+short", "many.example.com");
    assert.equal(whole.trim().split("\n").length, MANY);
  });

  test("what is passed on comes from the pod, and stays the bytes that it was in both directions", async (t) => {
    const reply = encode({
      type: "response",
      id: 0x1234,
      flags: 0x8583 & 0x7fff,
      questions: [{ name: "Odd.example", type: "UNKNOWN_65" as "A" }],
      answers: [{ name: "odd.example", type: "A", ttl: 7, data: "10.0.0.1" }],
      authorities: [{ name: "example", type: "NS", ttl: 7, data: "ns.example" }],
      additionals: [{ name: "ns.example", type: "A", ttl: 7, data: "10.0.0.2" }, ednsOf(4096)],
    });
    const queries = [
      dnsQuery("Odd.example", "UNKNOWN_65", { additionals: [ednsOf(4096)] }),
      // An update of a zone, as external-dns sends it, with half of a signature.
      Buffer.from("1234280000010000000000010161000006000100", "hex"),
    ];
    const resolver = new ScriptedResolver(lab.host("scripted"), () => [reply]);
    t.after(() => resolver.close());
    for (const query of queries) {
      if (query !== queries[0]) reply.writeUInt16BE(0, 4);
      for (const transport of ["udp", "tcp"] as const) {
        const got = await askFrom(lab.host("client3"), NAMESERVER, transport, query);
        assert.deepEqual(got, reply);
        assert.deepEqual(resolver.messages.at(-1), query);
      }
    }
    assert.deepEqual([...new Set(resolver.sources)], ["10.77.0.13"]);
    // More where this process was so slow to answer that a datagram counted as lost.
    assert.ok(resolver.messages.length >= 4, `${resolver.messages.length} messages`);
  });

  test("a silent nameserver costs one time-out, then the next one is asked first", async (t) => {
    const silent = new ScriptedResolver(lab.host("silent"), () => []);
    t.after(() => silent.close());
    const host = lab.host("client2");
    for (const name of ["ext.example.com", "two.example.com"]) {
      const reply = dnsReply(await askFrom(host, NAMESERVER, "udp", dnsQuery(name, "A")));
      assert.equal(reply.rcode, "NOERROR");
      // Sent again while it may have been lost.
      await waitUntil(() => silent.messages.length >= 3, "it was not sent again");
      assert.equal(silent.messages.length, 3);
    }
  });

  test("nobody where the nameserver should be is a failure at once", async () => {
    for (const transport of ["udp", "tcp"] as const) {
      const asked = dnsQuery("ext.example.com", "A");
      const reply = dnsReply(await askFrom(lab.host("nobody"), NAMESERVER, transport, asked));
      assert.equal(reply.rcode, "SERVFAIL");
    }
    const refused = /resolver 10\.77\.0\.43: .*ECONNREFUSED/;
    await waitUntil(() => results().filter((line) => refused.test(line)).length === 2, "no lines");
  });

  test("a nameserver in a pod that forwards to us ends in its own waiting", async () => {
    const host = lab.host("client4");
    const own = await startDnsmasq(lab.net, host, lab.folder, `--server=${NAMESERVER}`);
    const asked = dnsQuery("loop.example.com", "A");
    const reply = dnsReply(await askFrom(host, NAMESERVER, "udp", asked, 60_000));
    assert.notEqual(reply.rcode, "NOERROR");
    assert.ok(own.queries().length < 10, own.queries().join("\n"));
    // The names of the mesh are not concerned.
    const local = dnsReply(await askFrom(host, NAMESERVER, "udp", dnsQuery("echo", "A")));
    assert.deepEqual(answersOf(local), ["A 10.78.0.1"]);
  });

  test("queries that the rules send back to us are refused, and the log tells why", async () => {
    const before = upstream.queries().length;
    const host = lab.host("unmarked");
    for (const transport of ["udp", "tcp"] as const) {
      const reply = await askFrom(host, NAMESERVER, transport, dnsQuery("ext.example.com", "A"));
      assert.equal(dnsReply(reply).rcode, "SERVFAIL");
    }
    assert.equal(upstream.queries().length, before);
    const warnings = (): readonly string[] =>
      lab.node("node-b").lines.filter((line) => /redirected to the proxy itself/.test(line));
    await waitUntil(() => warnings().length > 0, "no warning");
    assert.equal(warnings().length, 1);
  });

  test("a pod with IPv6 only is answered, and asks over IPv6", async () => {
    const host = lab.host("six");
    const at = `@${NAMESERVER_V6}`;
    assert.equal(await dig(lab.net, host, at, "+short", "echo"), "10.78.0.1\n");
    assert.equal(await dig(lab.net, host, at, "+short", "ext.example.com"), "10.77.0.32\n");
    assert.equal(await dig(lab.net, host, at, "+tcp", "+short", "ext.example.com"), "10.77.0.32\n");
  });

  test("a pod without IPv6 is answered on 127.0.0.1 alone", async () => {
    const host = lab.host("four");
    assert.equal(await dig(lab.net, host, `@${NAMESERVER}`, "+short", "echo"), "10.78.0.1\n");
    const listening = lab.net.exec(host, "ss", "-Hlntu", "sport", "=", ":15053");
    assert.deepEqual(localAddresses(listening), ["127.0.0.1:15053", "127.0.0.1:15053"]);
    const both = lab.net.exec(lab.host("client1"), "ss", "-Hlntu", "sport", "=", ":15053");
    assert.deepEqual(localAddresses(both).toSorted(), [
      "127.0.0.1:15053",
      "127.0.0.1:15053",
      "[::1]:15053",
      "[::1]:15053",
    ]);
  });

  test("test_dns_metrics: queries are counted by type, transport and source", async () => {
    const metrics = await lab.node("node-a").metrics();
    const labels =
      'request_query_type="a",request_protocol="udp",source_canonical_service="client1",source_canonical_revision="v1"';
    for (const name of ["requests", "upstream_requests", "upstream_failures"]) {
      assert.match(metrics, new RegExp(`^istio_dns_${name}_total\\{${labels}\\} [1-9]`, "m"));
    }
    const duration = "istio_dns_upstream_request_duration_seconds";
    assert.match(metrics, new RegExp(`^${duration}_bucket\\{le="5",${labels}\\} [1-9]`, "m"));
    assert.match(metrics, new RegExp(`^${duration}_count\\{${labels}\\} [1-9]`, "m"));
  });

  test("queries that the proxy serves are no datagrams that pass by it", async () => {
    const look = async (): Promise<SocketReport["pods"][number]> => {
      const text = await lab.node("node-a").get(15000, "/debug/sockets");
      const { pods } = JSON.parse(text) as SocketReport;
      return pods.find(({ name }) => name === "client1") ?? assert.fail("never looked at");
    };
    const client = lab.host("client1");
    const before = await look();
    for (let asked = 0; asked < 10; asked++) {
      await askFrom(client, NAMESERVER, "udp", dnsQuery("echo", "A"));
      await askFrom(client, NAMESERVER, "udp", dnsQuery("ext.example.com", "A"));
    }
    // Each query and each answer, at both ends; ten of them also on their way to the upstream.
    const sent = before.udp.ipv4.sent + 4 * 10 + 10;
    await waitUntil(async () => (await look()).udp.ipv4.sent >= sent, "the kernel counts less");
    assert.deepEqual((await look()).udp.bypassing, before.udp.bypassing);

    const sender = datagramsOf(client);
    for (let i = 0; i < 50; i++) sender.send("no query", 4433, lab.host("gateway").ipv4);
    await waitUntil(async () => {
      const { bypassing } = (await look()).udp;
      return bypassing.sent > before.udp.bypassing.sent;
    }, "what passes by is not seen");
    sender.close();
  });

  test("readiness waits for DNS, and DNS alone is served where nothing else is wanted", async () => {
    const complete = (node: string, task: string): boolean =>
      lab.node(node).lines.some((line) => line.includes(`\tTask '${task}' complete (`));
    assert.equal(complete("node-a", "dns proxy"), true);
    assert.equal(complete("node-a", "proxy"), true);
    assert.equal(complete("node-b", "dns proxy"), true);
    assert.equal(complete("node-b", "proxy"), false);
    const listening = lab.net.exec(lab.host("unmarked"), "ss", "-Hlntu");
    assert.deepEqual([...new Set(localAddresses(listening))].toSorted(), [
      "127.0.0.1:15053",
      "[::1]:15053",
    ]);
  });

  test("a pod whose port is taken is not started, and the agent is told why", async () => {
    const host = lab.addHost("taken", "10.77.0.18");
    const squatter = datagramsOf(host, { ip: "127.0.0.1", port: 15053 });
    const node = lab.node("node-a");
    const pod = { uid: "taken", name: "taken", namespace: "default", serviceAccount: "taken" };
    const netnsFd = node.openNetns(host);
    const inUse = "Bind\\(127\\.0\\.0\\.1:15053, Os \\{ code: 98, kind: AddrInUse, message: ";
    await assert.rejects(node.agent.add(pod, netnsFd), new RegExp(inUse));
    assert.equal(lab.net.exec(host, "ss", "-Hlnt"), "");
    squatter.close();
    await node.agent.del("taken");
  });

  test("while another daemon takes over every query is answered", async (t) => {
    const host = lab.host("client1");
    const old = lab.node("node-a");
    let [count, again] = [0, 0];
    let isOver = false;
    const load = (async () => {
      for (; !isOver; count++) {
        // As resolvers do when nothing comes.
        await askFrom(host, NAMESERVER, "udp", dnsQuery("echo", "A"), 3000).catch(() => {
          again++;
          return askFrom(host, NAMESERVER, "udp", dnsQuery("echo", "A"));
        });
        await delay(5);
      }
    })();
    await lab.startSuccessor("node-a", "10.77.0.50");
    const exited = once(old.process, "exit");
    old.process.kill("SIGTERM");
    assert.deepEqual(await exited, [0, null]);
    isOver = true;
    await load;
    t.diagnostic(`${count} queries, ${again} asked again`);
    assert.ok(again <= 2, `${again} of ${count} queries were asked again`);
  });

  test("a pod that leaves has no server any more", async () => {
    const host = lab.host("nobody");
    await lab.node("node-a").agent.del("node-a-6");
    const listening = (): string => lab.net.exec(host, "ss", "-Hlntu", "sport", "=", ":15053");
    await waitUntil(() => listening() === "", "it still listens");
    const drained = "dns::server:dns_proxy{wl=default/nobody}\tdns server drained";
    await waitUntil(
      () => lab.node("node-a").lines.some((line) => line.includes(drained)),
      "no line in the log",
    );
  });
});

interface RecordedQuery {
  readonly what: string;
  readonly query: string;
  readonly reply: string;
  readonly tcp: boolean;
  /** Message and fields of the last line. */
  readonly log: string;
}

function recordedQueries(): readonly RecordedQuery[] {
  const text = readFileSync(join(RECORDED, "dns/queries.json"), "utf8");
  return (JSON.parse(text) as RecordedQuery[]).map(({ log, ...rest }) => {
    const last = log.trimEnd().split("\n").at(-1) ?? "";
    return { ...rest, log: last.split("\t").slice(3).join("\t") };
  });
}

/**
 * What must be as it was. The original rebuilds what it forwards (its own flags, no authority section,
 * its own EDNS, times to live counted down by its cache), and refuses opcodes that are passed on here.
 */
function comparable(bytes: Buffer, isForwarded: boolean): unknown {
  const reply = dnsReply(bytes);
  const { id, questions, rcode, flags, additionals, answers } = reply;
  const common = { id, questions, rcode, answers: answersOf(reply).toSorted() };
  if (isForwarded) return common;
  return { ...common, flags, additionals, owners: answers?.map(({ name }) => name) };
}

function localAddresses(sockets: string): readonly string[] {
  return sockets
    .trim()
    .split("\n")
    .map((line) => line.trim().split(/\s+/)[4] ?? "");
}

/** Of the recording, and workloads more. */
function meshText(): string {
  const more = ["nobody", "six", "four", "unmarked"].map(
    (name) =>
      `  - {uid: ${name}, name: ${name}, namespace: default, serviceAccount: ${name}, trustDomain: cluster.local, workloadIps: [], protocol: HBONE, node: ${name === "unmarked" ? "node-b" : "node-a"}, services: {}}\n`,
  );
  const text = readFileSync(join(RECORDED, "local-a.yaml"), "utf8");
  return text.replace('"workloads":\n', `"workloads":\n${more.join("")}`);
}

function startLab(): Promise<MeshLab> {
  const mesh = meshText();
  const environment = {
    RUST_LOG: "info,dns=debug",
    ZTUNNEL_WORKER_THREADS: "2",
    POD_SOCKETS_INTERVAL: "100ms",
  };
  const named = `nameserver ${NAMESERVER}\noptions timeout:1\n`;
  return MeshLab.start({
    nodes: {
      "node-a": {
        ip: "10.77.0.2",
        mesh,
        environment,
        pods: [
          { name: "client1", ip: "10.77.0.11", resolvConf: named },
          {
            name: "client2",
            ip: "10.77.0.12",
            resolvConf: `nameserver ${SILENT}\n${named}`,
          },
          { name: "client3", ip: "10.77.0.13", resolvConf: `nameserver ${SCRIPTED}\n` },
          {
            name: "client4",
            ip: "10.77.0.14",
            resolvConf: "nameserver 10.77.0.14\noptions timeout:1 attempts:1\n",
          },
          {
            name: "six",
            ip: "10.77.0.15",
            ipv6: "fd77::15",
            prepare: "ip -4 addr flush dev eth0",
            resolvConf: `nameserver ${NAMESERVER}\nnameserver ${NAMESERVER_V6}\n`,
          },
          {
            name: "four",
            ip: "10.77.0.16",
            prepare: "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6",
            resolvConf: named,
          },
          { name: "nobody", ip: "10.77.0.17", resolvConf: `nameserver ${NOBODY}\n` },
        ],
      },
      "node-b": {
        ip: "10.77.0.3",
        mesh,
        // Marks that the rules do not know, and DNS alone.
        environment: { ...environment, PACKET_MARK: "7", ENABLE_PROXY: "false" },
        pods: [{ name: "unmarked", ip: "10.77.0.21", resolvConf: named }],
      },
    },
    outsiders: { silent: SILENT, scripted: SCRIPTED, empty: NOBODY },
    mesh,
    controlIp: "10.77.0.4",
    prefixLength: 24,
    gatewayIp: NAMESERVER,
  });
}
