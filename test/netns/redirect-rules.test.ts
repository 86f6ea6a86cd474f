import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { installRedirect, removeRedirect } from "../../src/embedded/redirect-rules.ts";
import { Netns } from "../../src/net/netns.ts";
import { type LabHost, NetnsLab, requireNetns } from "../support/netns-lab.ts";

const skip = requireNetns("iptables-save", "ip6tables-save");
const PLAIN = { dnsCapture: false, inboundCapture: true };

function startLab(t: TestContext): { lab: NetnsLab; host: LabHost; netns: Netns } {
  const lab = new NetnsLab();
  t.after(() => lab.close());
  const host = lab.addHost("pod", { ipv4: "10.77.0.1/24", ipv6: "fd77::1/64" });
  const netns = Netns.open(host.path);
  t.after(() => netns.close());
  return { lab, host, netns };
}

/** Rules, policy rules and routes as text; tables without a rule say nothing. */
function picture(lab: NetnsLab, host: LabHost): string {
  const tables = ["iptables-save", "ip6tables-save"].flatMap((tool) =>
    [...lab.exec(host, tool).matchAll(/^\*[\s\S]*?^COMMIT$/gm)]
      .map((table) => table[0].replace(/\[\d+:\d+\]/g, ""))
      .filter((table) => /^-A|^:\S+ -/m.test(table)),
  );
  const routes = [
    ["-4", "rule"],
    ["-6", "rule"],
    ["-4", "route", "show", "table", "all"],
    ["-6", "route", "show", "table", "all"],
  ].map((args) => lab.exec(host, "ip", ...args));
  return [...tables, ...routes].join("\n");
}

test("installed rules are there as specified, for both families", { skip }, async (t) => {
  const { lab, host, netns } = startLab(t);
  assert.deepEqual(await installRedirect(netns.fd, { dnsCapture: true, inboundCapture: true }), {
    ipv6: true,
  });
  for (const [tool, loopback, probe] of [
    ["iptables-save", "127.0.0.1/32", "169.254.7.127/32"],
    ["ip6tables-save", "::1/128", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128"],
  ] as const) {
    const rules = lab
      .exec(host, tool)
      .split("\n")
      .filter((line) => /^(\*|-A)/.test(line));
    const tables = new Map<string, string[]>();
    let table: string[] = [];
    for (const rule of rules) {
      if (rule.startsWith("*")) {
        table = [];
        tables.set(rule.slice(1), table);
      } else table.push(rule.replace(" -m tcp", "").replace(" -m udp", ""));
    }
    assert.deepEqual(tables.get("nat"), [
      "-A PREROUTING -j ISTIO_PRERT",
      "-A OUTPUT -j ISTIO_OUTPUT",
      `-A ISTIO_OUTPUT -d ${probe} -p tcp -j ACCEPT`,
      "-A ISTIO_OUTPUT ! -o lo -p udp --dport 53 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15053",
      `-A ISTIO_OUTPUT ! -d ${loopback} -p tcp --dport 53 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15053`,
      "-A ISTIO_OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT",
      `-A ISTIO_OUTPUT ! -d ${loopback} -o lo -j ACCEPT`,
      `-A ISTIO_OUTPUT ! -d ${loopback} -p tcp -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15001`,
      `-A ISTIO_PRERT -s ${probe} -p tcp -j ACCEPT`,
      `-A ISTIO_PRERT ! -d ${loopback} -p tcp ! --dport 15008 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15006`,
    ]);
    assert.deepEqual(tables.get("mangle"), [
      "-A PREROUTING -j ISTIO_PRERT",
      "-A OUTPUT -j ISTIO_OUTPUT",
      "-A ISTIO_OUTPUT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff",
      "-A ISTIO_PRERT -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff",
    ]);
    assert.deepEqual(tables.get("raw"), [
      "-A PREROUTING -j ISTIO_PRERT",
      "-A OUTPUT -j ISTIO_OUTPUT",
      "-A ISTIO_OUTPUT -p udp --dport 53 -m mark --mark 0x539/0xfff -j CT --zone 1",
      "-A ISTIO_PRERT -p udp --sport 53 -m mark ! --mark 0x539/0xfff -j CT --zone 1",
    ]);
    const ip = tool === "iptables-save" ? "-4" : "-6";
    assert.match(
      lab.exec(host, "ip", ip, "rule"),
      /^32764:\s+from all fwmark 0x111\/0xfff lookup 100/m,
    );
    assert.match(
      lab.exec(host, "ip", ip, "route", "show", "table", "100"),
      /^local default dev lo/,
    );
  }
});

test("without DNS capture no rule names port 53", { skip }, async (t) => {
  const { lab, host, netns } = startLab(t);
  await installRedirect(netns.fd, PLAIN);
  assert.doesNotMatch(lab.exec(host, "iptables-save"), /--[ds]port 53|\*raw/);
});

test("removal leaves exactly what was there before, foreign rules included", {
  skip,
}, async (t) => {
  const { lab, host, netns } = startLab(t);
  lab.exec(host, "iptables", "-t", "nat", "-N", "FOREIGN");
  lab.exec(
    host,
    "iptables",
    "-t",
    "nat",
    "-A",
    "OUTPUT",
    "-p",
    "tcp",
    "--dport",
    "9",
    "-j",
    "FOREIGN",
  );
  lab.exec(host, "iptables", "-t", "mangle", "-A", "PREROUTING", "-j", "MARK", "--set-mark", "7");
  lab.exec(host, "ip6tables", "-A", "INPUT", "-p", "tcp", "--dport", "9", "-j", "DROP");
  lab.exec(host, "ip", "rule", "add", "fwmark", "0x7", "lookup", "100", "pref", "100");
  lab.exec(host, "ip", "rule", "add", "fwmark", "0x7", "lookup", "101", "pref", "32764");
  lab.exec(host, "ip", "route", "add", "10.9.0.0/16", "dev", "eth0", "table", "100");
  const before = picture(lab, host);
  await installRedirect(netns.fd, { dnsCapture: true, inboundCapture: true });
  assert.notEqual(picture(lab, host), before);
  await removeRedirect(netns.fd);
  assert.equal(picture(lab, host), before);
  await removeRedirect(netns.fd);
  assert.equal(picture(lab, host), before);
});

test("installing again replaces the rules instead of doubling them", { skip }, async (t) => {
  const { lab, host, netns } = startLab(t);
  await installRedirect(netns.fd, PLAIN);
  const once = picture(lab, host);
  await installRedirect(netns.fd, { dnsCapture: true, inboundCapture: true });
  await installRedirect(netns.fd, PLAIN);
  assert.equal(picture(lab, host), once);
});

test("an installation that fails half-way leaves nothing of ours", { skip }, async (t) => {
  const { lab, host, netns } = startLab(t);
  // The route that the last step adds is taken.
  lab.exec(host, "ip", "route", "add", "unreachable", "0.0.0.0/0", "table", "100");
  await assert.rejects(installRedirect(netns.fd, PLAIN), /^Error: ip -4 -batch -: .*File exists/s);
  assert.doesNotMatch(picture(lab, host), /ISTIO|fwmark/);
});

test("a namespace without IPv6 gets IPv4 rules only", { skip }, async (t) => {
  const { lab, host, netns } = startLab(t);
  lab.exec(host, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6");
  assert.deepEqual(await installRedirect(netns.fd, PLAIN), { ipv6: false });
  assert.doesNotMatch(lab.exec(host, "ip6tables-save"), /ISTIO/);
});

test("a namespace whose loopback is down is refused with the remedy", { skip }, async (t) => {
  const { lab, host, netns } = startLab(t);
  lab.exec(host, "ip", "link", "set", "lo", "down");
  await assert.rejects(installRedirect(netns.fd, PLAIN), /ip link set lo up/);
  assert.doesNotMatch(picture(lab, host), /ISTIO/);
});
